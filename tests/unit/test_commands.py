"""The command line: help in words, exit codes, and nothing that is cut when it is piped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.app import app

CASES = Path(__file__).parent.parent / "cases"
GOOD = CASES / "httproute-simple-same-namespace.in.yaml"
BAD = CASES / "httproute-invalid-nonexistent-backendref.in.yaml"
NAMES = "run|validate|translate|status|explain|filter new|filter test|filter run|filter bench|demo|version|install|uninstall"
NAMES += "|gateway enable|gateway disable|gateway status|controller"


def fsm(*words: str, text: str = "", columns: str = "60") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller", *words], capture_output=True, text=True, timeout=60, input=text,
        env={"COLUMNS": columns, "PATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["", *NAMES.split("|")])
def test_help_is_in_words(name: str) -> None:
    helps = [CliRunner().invoke(app, [*name.split(), option], env={"COLUMNS": "160"}) for option in ("-h", "--help")]
    assert [one.exit_code for one in helps] == [0, 0]
    assert helps[0].output == helps[1].output
    assert not re.search(r"INTEGER|FLOAT|BOOL|<\w|list\[|Optional", helps[0].output), helps[0].output


def test_the_version() -> None:
    found = CliRunner().invoke(app, ["--version"])
    assert found.exit_code == 0
    assert re.fullmatch(r"fsm \d+\.\d+\.\d+\S*\n", found.output)


def test_validate_tells_good_from_bad_and_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "others.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n")
    (tmp_path / "one.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n")
    good, bad, empty = fsm("validate", str(GOOD)), fsm("validate", str(BAD)), fsm("validate", str(tmp_path / "empty"))
    others, missing = fsm("validate", str(tmp_path / "others.yaml")), fsm("validate", str(tmp_path / "missing"))
    assert (good.returncode, bad.returncode, empty.returncode, others.returncode, missing.returncode) == (0, 1, 2, 2, 2)
    assert re.search(r"^\d+ objects are valid$", good.stdout, re.M)
    assert "does not exist" in bad.stdout
    assert empty.stderr == f"{tmp_path}/empty: no file with a name in .yaml, .yml, .json, .py was found\n"
    assert "no object that means anything to a gateway was found" in others.stderr
    assert "there is no such file or folder" in missing.stderr
    assert fsm("validate", str(tmp_path / "one.yaml")).stdout.endswith("1 object is valid\n")


STEERING = """
kind: Service
apiVersion: v1
metadata: {name: "a\\e[31mred"}
spec: {ports: [{port: 80}], type: "\\e]0;title\\a"}
---
kind: "Gate\\e[35mway"
apiVersion: "gateway.networking.k8s.io/v1\\u202e"
metadata: {name: "\\e[2J", namespace: "\\e[3J"}
"""


@pytest.mark.parametrize("command", ["validate", "status", "translate", "explain http://a.example/ -f"])
def test_nothing_that_is_written_steers_a_terminal(tmp_path: Path, command: str) -> None:
    path = tmp_path / "new\nline\x1b[31m.yaml"
    path.write_text(STEERING)
    done = fsm(*command.split(), str(path))
    words = done.stdout + done.stderr
    assert r"new\nline\x1b[31m.yaml" in words
    assert all(one.isprintable() or one == "\n" for one in words)


def test_validate_takes_several_paths_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "gw.yaml").write_text(GOOD.read_text())
    (tmp_path / "more.yaml").write_text("kind: HTTPRoute\napiVersion: v1\nmetadata: {name: r}\n")
    several = fsm("validate", str(tmp_path / "gw.yaml"), str(tmp_path / "more.yaml"))
    assert several.returncode == 1
    assert f"{tmp_path}/more.yaml:2: HTTPRoute r: apiVersion: found" in several.stdout
    piped = fsm("validate", "-", text=BAD.read_text())
    assert piped.returncode == 1
    assert re.search(r"^standard input:\d+: HTTPRoute .* does not exist", piped.stdout, re.M)
    assert fsm("validate", "-", text=GOOD.read_text()).returncode == 0
    whole = json.loads(fsm("validate", "--json", str(tmp_path / "gw.yaml"), "-", text=BAD.read_text()).stdout)
    assert {one["file"] for one in whole} == {"standard input"}


def test_statuses_are_whole_in_a_pipe_and_on_a_narrow_terminal() -> None:
    said = fsm("status", str(BAD), columns="40").stdout
    assert "…" not in said
    assert re.search(r"^HTTPRoute \S+ on \S+$", said, re.M)
    assert re.search(r"^  ResolvedRefs=False +BackendNotFound: Service .* does not exist\.$", said, re.M)


@pytest.mark.parametrize("url", ["foo", "http://a:x/", "ftp://a.example/", "http:///x", "http://a.example:0/"])
def test_what_is_no_url(url: str) -> None:
    found = fsm("explain", url, "-f", str(GOOD))
    assert found.returncode == 2
    assert f"{url!r} is no URL" in found.stderr
    assert "one such as http://demo.example.com/callme is needed" in found.stderr


def test_explain_adds_what_run_adds(tmp_path: Path) -> None:
    at = fsm("explain", "http://example.com:8080/", "-f", str(GOOD), "--port-offset", "8000", "--json")
    assert json.loads(at.stdout)["listener"]
    nowhere = fsm("explain", "http://example.com:81/", "-f", str(GOOD), "--port-offset", "8000")
    assert "listeners are on port 8080" in nowhere.stdout


ASIDE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: fsm-gateway-cls
  listeners:
  - {name: http, protocol: HTTP, port: 80}
  - {name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: none}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: section}
spec: {parentRefs: [{name: gw, sectionName: htpp}], hostnames: [a.example]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: expression}
spec:
  parentRefs: [{name: gw, sectionName: http}]
  hostnames: ["*.b.example"]
  rules:
  - matches: [{path: {type: RegularExpression, value: "/(a"}}]
  - matches: [{path: {value: /other}}]
    backendRefs: [{name: none, port: 80}]
"""


@pytest.mark.parametrize(
    ("url", "says", "not_said"),
    [
        ("http://a.example/", 'has no listener with sectionName "htpp"; it has http (port 80)', "expression"),
        ("http://A.example./", 'has no listener with sectionName "htpp"; it has http (port 80)', "expression"),
        ("http://x.b.example/a", "\"/(a\" is not an expression in RE2 syntax (missing ')')", "htpp"),
        (
            "http://x.b.example/other",
            'Service "default/none" does not exist',
            'default/none" does not exist.\n.*routes.yaml:22',
        ),
        ("https://a.example/", 'There is no Secret "default/none"', "expression"),
        ("https://a.example:8443/", 'There is no Secret "default/none"', "expression"),
        ("http://c.example/", "no route is for this hostname", "routes.yaml"),
    ],
)
def test_explain_tells_what_is_not_in_force(tmp_path: Path, url: str, says: str, not_said: str) -> None:
    """Routes and listeners that may have been meant, and why they do not answer."""
    path = tmp_path / "routes.yaml"
    path.write_text(ASIDE)
    found = fsm("explain", url, "-f", str(path), "--port-offset", "8000", columns="300")
    assert says in found.stdout
    assert not re.search(not_said, found.stdout)


@pytest.mark.parametrize(
    ("body", "code"), [("return None", 0), ("raise ValueError", 1), ("return Response(404)", 0), ("return Response(503)", 1)]
)
def test_filter_run_ends_as_the_request_does(tmp_path: Path, body: str, code: int) -> None:
    path = tmp_path / "f.py"
    path.write_text(f"from gateway.filters.api import Response\ndef request(request):\n    print('said')\n    {body}\n")
    found = fsm("filter", "run", str(path))
    assert found.returncode == code
    assert "INFO f: said" in found.stdout


def test_no_filters_is_not_green(tmp_path: Path) -> None:
    found = fsm("filter", "test", str(tmp_path))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"{tmp_path}: no .py file was found\n"


def test_a_command_that_is_told_can_be_copied(tmp_path: Path) -> None:
    said = fsm("filter", "new", "api-key", "--dir", str(tmp_path / "a-folder-with-a-long-name")).stdout
    assert f"fsm filter test {tmp_path}/a-folder-with-a-long-name/api-key.py; fsm filter run" in said
