"""Files, read and translated as they would be served, and all that is to be said of them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import cached_property
from pathlib import Path

from controller.files.source import FileSource
from controller.inspect import one_address
from controller.inspect.complaints import Complaint, located, of_remarks, of_status
from controller.objects.base import Ref
from controller.objects.documents import DocumentFault, spelled
from controller.objects.gateways import Gateway, ListenerSet
from controller.objects.kinds import AnyObject
from controller.objects.routes import GRPCRoute, HTTPRoute
from controller.state.world import World
from controller.translate import Translation, Translator, translate, translated
from controller.translate.shared.hostnames import overlap
from controller.translate.shared.status import Status

_SETTINGS = {("setting", "addresses"): ("127.0.0.1",), ("setting", "loopback backends"): True, ("setting", "remarks"): True}


class LoadedFiles:
    """What files say. `more` are read as if they were in one folder with the first."""

    def __init__(self, path: Path, *more: Path) -> None:
        self.world = _world()
        self.source = FileSource(path, self.world, *more)
        self.source.load()
        self.world.note(("refused",), frozenset(fault.object for fault in self.source.faults))
        one_address.note_served(self.world)
        self._translator = Translator(self.world)
        self._translator.update()
        self.translation: Translation = translated(self._translator)

    def faults(self) -> list[DocumentFault]:
        """All that is wrong: what the API server would refuse, then what the controller would complain of."""
        found = list(self.source.faults)
        said = {(fault.object, fault.field) for fault in found}
        complaints = [one for one in self._complaints if not one.here and (str(one.about), spelled(one.path)) not in said]
        found += located(complaints, self.source.origins)
        for ref, several in sorted(self.translation.failing.items()):
            file, line = self.source.origins.get(ref, ("", 0))
            for part, text in several:
                found.append(
                    DocumentFault(file, line, f"the controller fails at it: {text}; please report this", str(ref), part)
                )
        return found

    def notes(self) -> list[DocumentFault]:
        """What is wrong here only: on a cluster it would be well."""
        found = [one for one in self._complaints if one.here]
        for ref in one_address.note_places(self.world, self._translator):
            found += [one for one in of_status(ref, self._translator.statuses[ref]) if one.here]
        one_address.note_served(self.world)
        self._translator.update()
        return located(found, self.source.origins)

    def set_aside(self, host: str, ports: Container[int]) -> list[tuple[Complaint, DocumentFault]]:
        """What is wrong with the routes and listeners that a request for this host, at one of these ports, may want."""
        objects = {obj.ref: obj for obj in (*self.world, *self.source.refused.values())}
        found = [one for one in self._complaints if _is_wanted(objects.get(one.about), one, host, ports)]
        return list(zip(found, located(found, self.source.origins), strict=True))

    @cached_property
    def _complaints(self) -> list[Complaint]:
        said = sorted((self.translation.statuses | self._would_say()).items())
        found = [one for ref, status in said for one in of_status(ref, status)]
        return found + [one for ref, several in sorted(self.translation.remarks.items()) for one in of_remarks(ref, several)]

    def _would_say(self) -> dict[Ref, Status]:
        """What the controller would say of refused objects, were they taken: all that is wrong in one go."""
        if not self.source.refused:
            return {}
        scratch = _world()
        for obj in (*self.world, *self.source.refused.values()):
            scratch.put(obj)
        statuses = translate(scratch).statuses
        return {ref: statuses[ref] for ref in self.source.refused if ref in statuses}


def _is_wanted(obj: AnyObject | None, complaint: Complaint, host: str, ports: Container[int]) -> bool:
    if isinstance(obj, Gateway | ListenerSet):
        at = complaint.path[2] if complaint.path[:2] == ("spec", "listeners") and len(complaint.path) > 2 else None
        listeners = obj.spec.listeners[at : at + 1] if isinstance(at, int) else obj.spec.listeners
        return any(one.port in ports and _may_mean((one.hostname,), host) for one in listeners)
    return isinstance(obj, HTTPRoute | GRPCRoute) and _may_mean(obj.spec.hostnames, host)


def _may_mean(hostnames: Iterable[str], host: str) -> bool:
    named = [name for name in hostnames if name]
    return not named or any(overlap(name, host) for name in named)


def _world() -> World:
    made = World()
    for key, value in _SETTINGS.items():
        made.note(key, value)
    return made
