"""`fsm validate`, `fsm translate`, `fsm status`: what files mean, without serving them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml
from rich.markup import escape
from rich.table import Table

from controller.cli import console
from controller.files.source import FileSource
from controller.inspect.status_report import as_dict, complaint, described, is_healthy, parts
from controller.objects.base import Ref
from controller.objects.documents import DocumentFault
from controller.objects.gateways import ALL
from controller.objects.routes import ROUTES
from controller.state.world import Report, World
from controller.translate import Translation, translate
from controller.translate.shared.status import Status
from gateway.snapshot import redacted


class LoadedFiles:
    """Files, read and translated."""

    def __init__(self, path: Path) -> None:
        self.world = World()
        self.world.note(("setting", "addresses"), ("127.0.0.1",))
        self.world.note(("setting", "loopback backends"), True)
        self.source = FileSource(path, self.world)
        self.source.load()
        for ref in self.world.refs("Gateway"):
            report = Report(True, "Valid; nothing serves it while it is only looked at.")
            self.world.note(("report", ref.namespace, ref.name), report)
        self.translation: Translation = translate(self.world)

    def faults(self) -> list[DocumentFault]:
        """All that is wrong: what the API server would refuse, then what the controller would complain of."""
        found = list(self.source.faults)
        for ref, status in sorted((self.translation.statuses | self._would_say()).items()):
            for name, said in parts(ref, status):
                origin = self.source.origins.get(ref)
                for condition in said:
                    if text := complaint(condition):
                        file, line = origin or ("", 0)
                        found.append(DocumentFault(file, line, text, name))
        for ref, several in sorted(self.translation.failing.items()):
            file, line = self.source.origins.get(ref, ("", 0))
            for part, text in several:
                found.append(
                    DocumentFault(file, line, f"the controller fails at it: {text}; please report this", str(ref), part)
                )
        return [*found, *self._orphans()]

    def _would_say(self) -> dict[Ref, Status]:
        """What the controller would say of refused objects, were they taken: all that is wrong in one go."""
        if not self.source.refused:
            return {}
        scratch = World()
        for key in (("setting", "addresses"), ("setting", "loopback backends")):
            scratch.note(key, self.world.read(key))
        for obj in (*self.world, *self.source.refused.values()):
            scratch.put(obj)
        statuses = translate(scratch).statuses
        return {ref: statuses[ref] for ref in self.source.refused if ref in statuses}

    def _orphans(self) -> list[DocumentFault]:
        """Routes that no Gateway of ours takes: the API says nothing of them, a person should."""
        found = []
        for ref in [ref for kind in ROUTES for ref in self.world.refs(kind)]:
            if ref not in self.translation.statuses:
                file, line = self.source.origins.get(ref, ("", 0))
                found.append(DocumentFault(file, line, self._why_nowhere(ref), str(ref)))
        return found

    def _why_nowhere(self, ref: Ref) -> str:
        gateways = ", ".join(f"{r.namespace}/{r.name}" for r in self.world.refs("Gateway")) or "none"
        why = "no parentRef names a Gateway of a GatewayClass of ours"
        if self.world.read(("object", ref)).spec.use_default_gateways == ALL:
            why += ", and none of these has defaultScope: All, which useDefaultGateways asks for"
        return f"{why}; Gateways here: {gateways}"


def validate_files(path: Path, *, as_json: bool) -> None:
    """Print every fault; exit with 1 if there is one."""
    loaded = LoadedFiles(path)
    faults = loaded.faults()
    if as_json:
        console.json(
            [{"file": f.file, "line": f.line, "object": f.object, "field": f.field, "message": f.message} for f in faults]
        )
    else:
        for fault in faults:
            where = (f"{fault.file}:{fault.line}: " if fault.line else f"{fault.file}: ") if fault.file else ""
            what = ": ".join(part for part in (fault.object, fault.field) if part)
            console.out.print(f"[bold]{escape(where)}[/][red]{escape(what)}[/]: {escape(fault.message)}", soft_wrap=True)
        if not faults:
            console.out.print(f"[green]{len(loaded.world)} objects are valid[/]")
    raise SystemExit(1 if faults else 0)


def translate_files(path: Path, *, as_json: bool) -> None:
    """Print parts and statuses."""
    loaded = LoadedFiles(path)
    for fault in loaded.source.faults:
        console.err.print(f"[red]{escape(str(fault))}[/]")
    value = rendered(loaded.translation)
    if as_json:
        console.json(value)
    else:
        console.out.print(
            yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120), end="", markup=False, soft_wrap=True
        )


def rendered(translation: Translation) -> dict[str, Any]:
    """A translation as plain values, secrets withheld."""
    return {
        "gateways": {
            f"{namespace}/{name}": [msgspec.to_builtins(redacted(part)) for _, part in sorted(found.items())]
            for (namespace, name), found in sorted(translation.parts.items())
        },
        "statuses": {
            name: [as_dict(condition) for condition in said]
            for ref, status in sorted(translation.statuses.items())
            for name, said in parts(ref, status)
        },
    }


def status_files(path: Path, *, as_json: bool) -> None:
    """Print the statuses as a table."""
    loaded = LoadedFiles(path)
    if as_json:
        console.json(described(loaded.translation.statuses))
        return
    for fault in loaded.source.faults:
        console.err.print(f"[red]{escape(str(fault))}[/]")
    table = Table("object", "condition", "reason", "message", box=None, header_style="bold", pad_edge=False)
    last: Ref | str = ""
    for ref, status in sorted(loaded.translation.statuses.items()):
        for name, said in parts(ref, status):
            for condition in said:
                colour = "green" if is_healthy(condition) else "red"
                state = f"[{colour}]{condition.type}={condition.status}[/]"
                table.add_row("" if name == last else name, state, condition.reason, escape(condition.message))
                last = name
    console.out.print(table)
