"""Files of every kind, good and bad, beside a gateway that serves: `python tests/fuzz/files.py --seconds 600 [--seed N]`.

Runs `fsm run` on a directory and rewrites what is in it, one odd thing after the other. Between them one route is edited, which must be
in force soon; another one, which is never touched, is asked all the time, and must always answer. Exits with 1 at the first
fault, with the seed to run it again by, and with 0 when its time is up.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from controller.ports import free_ports  # noqa: E402

BOUND = 20.0  # seconds until an edit is in force: some files beside it are as large as may be, and the machine may be busy
SETTLED = 60.0  # seconds until memory is looked at for the first time
GROWTH = 1.3  # of memory after that
SLACK = 60_000  # kB of memory that come and go

STEADY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec: {{gatewayClassName: fsm-gateway-cls, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: a}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: a-1, labels: {{kubernetes.io/service-name: a}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: ["{name}.example.com"]
  rules:
  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-Version, value: "{version}"}}]}}}}]
    backendRefs: [{{name: a, port: 80}}]
"""


def route(name: str, version: object = 0) -> str:
    return ROUTE.format(name=name, version=version)


# --- what is written ---

DAMAGE = [
    "!!python/object:os.system x", "!!binary aGk=", "a: &a [*a]", "a: &a {b: *a}", "&a x", "*nowhere", "[" * 50_000, "- " * 50_000, "{? " * 9_000, "\x00", "\x85", "\ufeff",
    "? [a, b]\n: c", "1: 2", "kind: 5", "kind: List\nitems: {a: b}", "kind: List\nitems: [5, null, {kind: List, items: []}]", "9" * 5000, ".nan", "2001-01-01", "- a\n" * 3000,
    "%TAG ! tag:x,2000:\n", "...\n", "a: |\n  ---\n", "a: 'b\n---\n", "\t\t", "<<: {kind: HTTPRoute}", "<<: *a", "kind: HTTPRoute\nkind: HTTPRoute", "\ud800", "😀" * 1000,
]  # fmt: skip
ALIASES = "\n".join(["a0: &a0 [x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])


class Files:
    """Odd things below a folder. Each does one, of which there are bounded many at a time."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root = root
        self._chance = chance
        self.ways: list[Callable[[], object]] = [
            self.valid, self.valid, self.damaged, self.damaged, self.listed, self.as_json, self.half, self.in_steps, self.huge, self.large, self.pipe, self.unix_socket, self.device,
            self.links, self.rights, self.folder_again, self.swapped, self.renamed_over, self.editor, self.gone, self.python, self.bytes, self.mount, self.types, self.touched,
        ]  # fmt: skip

    def path(self, suffix: str = "") -> Path:
        """One of few names, so that they come again; whatever was there is gone."""
        suffix = suffix or self._chance.choice([".yaml", ".yml", ".json"])
        folder = self.root / self._chance.choice(["", "", "sub", "sub/deep"])
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            folder.mkdir(parents=True, exist_ok=True)
        path = (folder if folder.is_dir() else self.root) / f"odd{self._chance.randrange(6)}{suffix}"
        remove(path)
        return path

    def text(self) -> str:
        return "---".join(
            route(f"r{self._chance.randrange(40)}", self._chance.randrange(9)) for _ in range(self._chance.choice([1, 2, 30]))
        )

    def valid(self) -> None:
        self.path().write_text(self.text())

    def damaged(self) -> None:
        text = self.text()
        for _ in range(self._chance.choice([1, 1, 5])):
            at = self._chance.choice([0, len(text), self._chance.randrange(len(text))])
            text = (
                text[:at]
                + self._chance.choice(["", "\n"])
                + self._chance.choice(DAMAGE)
                + self._chance.choice(["", "\n", "\n---\n"])
                + text[at:]
            )
        if self._chance.random() < 0.3:
            text = text.replace("\n", self._chance.choice(["\r\n", "\r", "\n\n", "\u2028"]))
        self.path().write_bytes(text.encode(errors="surrogatepass"))

    def listed(self) -> None:
        items = "".join(
            "- " + route(f"r{number}", self._chance.randrange(3)).strip().replace("\n", "\n  ") + "\n"
            for number in range(self._chance.randrange(60))
        )
        self.path().write_text(
            f"kind: List\napiVersion: v1\nitems:\n{items}" + self._chance.choice(["", "metadata: {}\n", "items: []\n", "# end"])
        )

    def as_json(self) -> None:
        item = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"s{self._chance.randrange(9)}"},
            "spec": {"ports": [{"port": self._chance.choice([80, -1, 1e400, 10**40, "x", None, True])}]},
        }
        text = json.dumps(
            {"kind": "List", "apiVersion": "v1", "items": [item] * self._chance.randrange(20)},
            indent=self._chance.choice([None, 4]),
        )
        self.path(".json").write_text(text[: self._chance.choice([len(text), self._chance.randrange(len(text))])])

    def half(self) -> None:
        text = self.text()
        self.path().write_text(text[: self._chance.randrange(len(text))])

    def in_steps(self) -> None:
        with self.path().open("w") as file:
            for piece in re.findall(r"(?s).{1,200}", self.text()):
                file.write(piece)
                file.flush()

    def huge(self) -> None:
        if self._chance.random() < 0.2:
            self.path().write_text(self._chance.choice(["a", "a,", "- a\n", "---\na\n", "[", "#\n", "a: b\n"]) * (17 << 18))

    def large(self) -> None:
        if self._chance.random() < 0.3:
            wanted = self._chance.choice(["---\nkind: Pod\n", "---\nx\n", "- a\n", '"', ALIASES + "\nkind: X\n---\n"])
            self.path().write_text("kind: ConfigMap\n" + wanted * (400_000 // len(wanted)))

    def pipe(self) -> None:
        os.mkfifo(self.path())

    def unix_socket(self) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(self.path()))

    def device(self) -> None:
        self.path().symlink_to(
            self._chance.choice(["/dev/zero", "/dev/null", "/dev/stdin", "/dev/tty", "/proc/self/mem", "/proc/kmsg", "/"])
        )

    def links(self) -> None:
        path = self.path()
        to = self._chance.choice(
            [
                path,
                path.with_name("odd0.yaml"),
                path.with_name("loop"),
                Path(".."),
                self.root,
                Path("nowhere.yaml"),
                self.root / "steady.yaml",
            ]
        )
        path.symlink_to(to)
        with contextlib.suppress(OSError):
            path.with_name("loop").symlink_to(self._chance.choice([path, Path("loop"), Path("..")]))
        if self._chance.random() < 0.5:
            remove(path.with_name("loop"))

    def rights(self) -> None:
        path = self.path()
        path.write_text(self.text())
        path.chmod(self._chance.choice([0, 0o200, 0o444]))

    def folder_again(self) -> None:
        remove(self.root / "sub")
        if self._chance.random() < 0.3:
            (self.root / "sub").write_text("a file")
        elif self._chance.random() < 0.7:
            (self.root / "sub" / "deep").mkdir(parents=True)
            (self.root / "sub" / "deep" / "odd0.yaml").write_text(self.text())

    def swapped(self) -> None:
        """All of it goes and comes back, at once or a moment later."""
        beside, old = self.root.with_name("new"), self.root.with_name("old")
        remove(beside)
        shutil.copytree(
            self.root,
            beside,
            symlinks=True,
            ignore=lambda folder, names: [name for name in names if not plain(Path(folder, name))],
        )
        self.root.rename(old)
        time.sleep(self._chance.choice([0, 0, 0.05, 0.5]))
        beside.rename(self.root)
        remove(old)

    def renamed_over(self) -> None:
        fresh = self.root / ".fresh"
        fresh.write_text(self.text())
        fresh.rename(self.path())

    def editor(self) -> None:
        path = self.path(".yaml")
        swap = path.with_name(f".{path.name}.swp")
        swap.write_bytes(os.urandom(200))
        path.write_text(self.text())
        path.rename(path.with_name(f"{path.name}~"))
        path.write_text(self.text())
        for one in (swap, path.with_name(f"{path.name}~"), path.with_name(f"#{path.name}#")):
            one.unlink(missing_ok=True)

    def gone(self) -> None:
        self.path()

    def python(self) -> None:
        source = [
            "def request(request):\n    return None\n",
            "def request(",
            "raise SystemExit\n",
            "while True:\n    pass\n",
            "\x00",
            "x = '" + "y" * 100_000 + "'\n",
            "import os\nos._exit(1)\n",
        ]
        self.path(".py").write_text(self._chance.choice(source))

    def bytes(self) -> None:
        self.path().write_bytes(os.urandom(self._chance.choice([1, 100, 100_000])))

    def mount(self) -> None:
        """As Kubernetes swaps a ConfigMap's mount."""
        data = self.root / f"..{self._chance.randrange(10**6)}"
        data.mkdir()
        (data / "odd0.yaml").write_text(self.text())
        fresh = self.root / "..fresh"
        remove(fresh)
        fresh.symlink_to(data.name)
        old = self.root / "..data"
        before = old.resolve() if old.is_symlink() else None
        fresh.rename(old)
        path = self.path(".yaml")
        path.symlink_to(os.path.relpath(old / "odd0.yaml", path.parent))
        if before is not None:
            remove(before)

    def types(self) -> None:
        """A folder of a file's name, and the other way round."""
        path = self.path()
        path.mkdir()
        (path / "odd1.yaml").write_text(self.text())

    def touched(self) -> None:
        for path in (self.root / "steady.yaml", self.root / "edited.yaml"):
            path.touch()


def plain(path: Path) -> bool:
    return path.is_symlink() or path.is_dir() or path.is_file()


def remove(path: Path) -> None:
    """Whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# --- who looks on ---


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class Client:
    """Asks on a connection that it keeps."""

    def __init__(self, port: int) -> None:
        self._kept = http.client.HTTPConnection("127.0.0.1", port, timeout=15)

    def get(self, name: str) -> tuple[int, str]:
        """The status and X-Version."""
        self._kept.request("GET", "/", headers={"Host": f"{name}.example.com"})
        answer = self._kept.getresponse()
        answer.read()
        return answer.status, answer.getheader("X-Version", "")


class Steady(threading.Thread):
    """Asks the route that nobody touches, all the time."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.answers = 0
        self.slowest = 0.0
        self.failed = ""
        self.over = threading.Event()

    def run(self) -> None:
        client = Client(self._port)
        while not self.over.wait(0.005) and not self.failed:
            began = time.monotonic()
            try:
                found = client.get("steady")
            except (OSError, http.client.HTTPException) as error:
                self.failed = repr(error)
                return
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.answers += 1
            if found != (200, "steady"):  # a part of it that is gone for a moment shows here
                self.failed = f"answered {found}"


class Fault(Exception):
    """What must not happen has."""


class Gateway:
    """`fsm run` on a folder, as a process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port, self.admin = free_ports(2)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "controller", "run", str(root), "--port-offset", str(self.port - 80), "--admin", f"127.0.0.1:{self.admin}", "--workers", "2"],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "200", "PYTHONFAULTHANDLER": "1"},
        )  # fmt: skip
        self.said: deque[bytes] = deque(maxlen=5000)
        self._reading = threading.Thread(
            target=lambda: [self.said.append(line) for line in self._process.stderr or ()], daemon=True
        )
        self._reading.start()

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            self.check()
            try:
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)) as one:
                    one.request("GET", "/readyz")
                    if one.getresponse().status == 200:
                        return
            except OSError:
                time.sleep(0.05)
        raise Fault("it is not ready after a minute")

    def check(self) -> None:
        if self._process.poll() is not None:
            raise Fault(f"the process has ended with {self._process.returncode}")

    def memory(self) -> dict[str, int]:
        """kB that each kind of process holds: the supervisor, and its workers by themselves."""
        found = {"supervisor": resident(self._process.pid)}
        for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"gateway.process.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found["workers"] = max(found.get("workers", 0), resident(int(child)))
        return found

    def end_where_it_stands(self) -> None:
        """End it so that it says what each of its threads was doing."""
        if self._process.poll() is None:
            workers = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            self._process.send_signal(signal.SIGABRT)
            self._process.wait(20)
            for worker in workers:  # they end with it, but may be what is stuck
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(worker), signal.SIGKILL)
            self._reading.join(5)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Fault("it did not end when it was told to") from None


def resident(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


# --- a run ---


class Run:
    """One run, and what it has seen."""

    def __init__(self, folder: Path, seed: int, seconds: float, bound: float) -> None:
        self._seconds = seconds
        self._bound = bound
        self._chance = random.Random(seed)
        root = folder / "files"
        root.mkdir()
        self._backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        threading.Thread(target=self._backend.serve_forever, daemon=True).start()
        (root / "steady.yaml").write_text(STEADY.format(port=self._backend.server_port) + route("steady", "steady"))
        (root / "edited.yaml").write_text(route("edited"))
        self._files = Files(root, self._chance)
        self.gateway = Gateway(root)
        self._edits: list[float] = []
        self._settled: dict[str, int] = {}
        self.last: deque[str] = deque(maxlen=12)

    def __call__(self) -> str:
        """Until its time is up. Raises Fault."""
        self.gateway.wait_until_ready()
        steady = Steady(self.gateway.port)
        steady.start()
        began = told = time.monotonic()
        try:
            while (now := time.monotonic()) < began + self._seconds:
                way = self._chance.choice(self._files.ways)
                self.last.append(way.__name__)
                way()
                if len(self._edits) % 3 == 0 or self._chance.random() < 0.2:
                    self._edit()
                else:
                    self._edits.append(self._edits[-1])
                self._check(steady)
                if not self._settled and now > began + min(SETTLED, self._seconds / 2):
                    self._settled = self._quiet()
                if now > told + 10:
                    told = now
                    print(f"{now - began:4.0f} s: {self._summary(steady)}", flush=True)
            self._check_memory()
            steady.over.set()
            steady.join(20)
            self._check(steady)
            return self._summary(steady)
        finally:
            steady.over.set()

    def _edit(self) -> None:
        """One route is written anew, and must be in force soon."""
        version = str(len(self._edits) + 1)
        fresh = self._files.root / ".edited"
        fresh.write_text(route("edited", version))
        fresh.rename(self._files.root / "edited.yaml")
        began = time.monotonic()
        client = Client(self.gateway.port)
        while client.get("edited") != (200, version):
            self.gateway.check()
            if time.monotonic() > began + self._bound:
                raise Fault(
                    f"an edit is not in force after {self._bound:.0f} s: it answers {client.get('edited')}, {version} was written"
                )
            time.sleep(0.002)
        self._edits.append(time.monotonic() - began)

    def _check(self, steady: Steady) -> None:
        self.gateway.check()
        if steady.failed:
            raise Fault(f"a request that nothing is wrong with failed: {steady.failed}")

    def _quiet(self) -> dict[str, int]:
        """Memory with the same files each time."""
        for path in self._files.root.iterdir():
            if path.name not in ("steady.yaml", "edited.yaml"):
                remove(path)
        self._edit()
        return self.gateway.memory()

    def _check_memory(self) -> None:
        now = self._quiet()
        for name, before in self._settled.items():
            if now.get(name, 0) > before * GROWTH + SLACK:
                raise Fault(f"memory of the {name} grew from {before >> 10} to {now[name] >> 10} MB")

    def _summary(self, steady: Steady) -> str:
        memory = ", ".join(
            f"{name} {kb >> 10} MB (settled: {self._settled.get(name, 0) >> 10})" for name, kb in self.gateway.memory().items()
        )
        edits = f"p50 {statistics.median(self._edits) * 1000:.0f} ms, at most {max(self._edits) * 1000:.0f} ms"
        return f"{len(self._edits)} odd things; edits in force: {edits}; {steady.answers} requests, the slowest {steady.slowest * 1000:.0f} ms; {memory}"


@contextlib.contextmanager
def folder_of_its_own() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fsm-files-"))
    try:
        yield folder
    finally:
        remove(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--bound", type=float, default=BOUND, help="seconds until an edit must be in force")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with folder_of_its_own() as folder:
        run = Run(folder, arguments.seed, arguments.seconds, arguments.bound)
        try:
            print(run(), flush=True)
            run.gateway.stop()
        except Fault as fault:
            run.gateway.end_where_it_stands()
            print(f"FAULT after {', '.join(run.last)}: {fault}\n--seed {arguments.seed}; the last that it said:", flush=True)
            print(b"".join(run.gateway.said).decode(errors="replace"), flush=True)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
