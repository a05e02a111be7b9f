"""What the API server would refuse, for YAML that never met one: schemas, unknown fields, defaults, CEL rules.

Gateway API kinds are checked against their CRDs, which ship as data; core kinds against the types that we read.
Every fault names the file, line, object and field, what was found, and what would work.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import jsonschema_rs
import msgspec
import yaml

from controller.files import core_rules
from controller.files.cel_rules import failing
from controller.objects.conversion import convert, other_type, quoted, shown, sounds_secret
from controller.objects.documents import Document, DocumentFault, Path, spelled
from controller.objects.kinds import KINDS, AnyObject, Kind
from controller.objects.naming import LABEL_RULE, LABEL_VALUE_RULE, NAME_RULE, fits

NEAR: Final = 0.85  # from 0 for nothing in common to 1 for the same


class Valid(NamedTuple):
    """An object that the API server would take, with its defaults."""

    object: AnyObject
    document: Document


def validate(document: Document) -> Valid | list[DocumentFault] | None:
    """The typed object, or all that is wrong with it. None for kinds that mean nothing to a gateway."""
    kind = KINDS.get(document.value["kind"])
    api_version = document.value.get("apiVersion")
    if kind is None:
        near = _nearly(document.value["kind"], api_version)
        return [document.fault(("kind",), near)] if near else None
    if not isinstance(api_version, str) or api_version not in kind.api_versions:
        if isinstance(api_version, str) and _is_others(api_version, kind):
            return None  # another group's kind of the same name
        found = f"found {quoted(api_version)}" if api_version is not None else "is missing"
        return [document.fault(("apiVersion",), f"{found}; {' or '.join(kind.api_versions)} is served")]
    faults = list(_metadata(document, kind))
    schema = _schema(kind.type.__name__, api_version.rpartition("/")[2])
    if schema is not None and isinstance(document.value.get("metadata"), dict):
        faults += schema.check(document)
    typed = _typed(document, kind) if schema is None or not faults else []
    if isinstance(typed, Valid):
        faults += core_rules.faults(typed.object, document)
        return faults or typed
    said = {fault.field for fault in faults}
    return faults + [fault for fault in typed if fault.field not in said]


def _is_others(api_version: str, kind: Kind) -> bool:
    """Whether a kind of this name may well be another group's. Kubernetes' own groups are known to have none."""
    group = _group(api_version) or (api_version if "." in api_version else "")  # written without a version
    if not group or "." not in group or group.endswith(".k8s.io"):
        return False
    return not any(is_near(group, ours) for ours in map(_group, kind.api_versions))


def _group(api_version: Any) -> str:
    return api_version.rpartition("/")[0] if isinstance(api_version, str) else ""


@lru_cache(maxsize=4096)  # a folder may have thousands of objects of other kinds
def is_near(word: str, other: str) -> bool:
    """Whether one was meant where the other was written: a slip of a letter or two, not another word."""
    return difflib.SequenceMatcher(None, word.lower(), other.lower()).ratio() > NEAR


def _nearly(written: str, api_version: Any) -> str:
    """Whether a kind is nearly one of ours, in words; empty for those that have nothing to do with a gateway."""
    group = _group(api_version)
    for name, kind in KINDS.items():
        in_group = bool(kind.group) and is_near(group, kind.group)
        if written.lower() == name.lower() or (in_group and is_near(written, name)):
            return f'found "{written}"; did you mean {name} ({kind.api_versions[0]})?'
    if group in {kind.group for kind in KINDS.values() if kind.group}:
        known = ", ".join(name for name, kind in KINDS.items() if kind.group == group)
        return f'found "{written}"; of {group} these are known: {known}'
    return ""


def _metadata(document: Document, kind: Kind) -> Iterator[DocumentFault]:
    meta = document.value.get("metadata")
    if not isinstance(meta, dict):
        yield document.fault(("metadata",), "is missing; metadata.name is needed")
        return
    meta.setdefault("namespace", "default" if kind.namespaced else "")
    name = meta.get("name")
    if name is None or name == "":
        yield document.fault(("metadata", "name"), "is missing")
    elif not isinstance(name, str):
        yield document.fault(("metadata", "name"), f"found {quoted(name)}; {other_type('str', name)}")
    elif not fits("dns1123Subdomain", name):
        yield document.fault(("metadata", "name"), f"found {quoted(name)}; {NAME_RULE}")
    namespace = meta.get("namespace", "")
    if not isinstance(namespace, str):
        yield document.fault(("metadata", "namespace"), f"found {quoted(namespace)}; {other_type('str', namespace)}")
    elif namespace and not fits("dns1123Label", namespace):
        yield document.fault(("metadata", "namespace"), f"found {quoted(namespace)}; {LABEL_RULE}")
    yield from _keys_and_values(document, meta, is_secret=kind.type.holds_secrets)
    if not kind.namespaced and meta.get("namespace"):
        yield document.fault(("metadata", "namespace"), f"a {kind.type.__name__} has no namespace; remove it")


def _keys_and_values(document: Document, meta: dict[str, Any], *, is_secret: bool) -> Iterator[DocumentFault]:
    """Labels and annotations (ObjectMeta): texts, and what a label may hold."""
    for field in ("labels", "annotations"):
        given = meta.get(field)
        if given is None:
            continue
        if not isinstance(given, dict):
            yield document.fault(("metadata", field), f"found {shown(given, is_secret=is_secret)}; names and values are needed")
            continue
        for key, value in given.items():
            where = ("metadata", field, key)
            found = shown(value, is_secret=is_secret or sounds_secret(where))
            if not isinstance(value, str):
                yield document.fault(where, f"found {found}; {other_type('str', value)}")
            elif field == "labels" and not fits("labelValue", value):
                yield document.fault(where, f"found {found}; {LABEL_VALUE_RULE}")


def _typed(document: Document, kind: Kind) -> Valid | list[DocumentFault]:
    converted = convert(document.value, kind.type)
    return [document.fault(*converted)] if isinstance(converted, tuple) else Valid(converted, document)


def readable(document: Document) -> AnyObject | None:
    """A refused object all the same, where it has the right shape: to say what else is wrong with it."""
    kind = KINDS.get(document.value["kind"])
    result = _typed(document, kind) if kind is not None else None
    return result.object if isinstance(result, Valid) else None


# --- CRDs -------------------------------------------------------------------------------------------------


@cache
def bundle() -> dict[str, Any]:
    """The Gateway API's CRDs: {"version": …, "standard": […], "experimental": […]}."""
    data = (files("controller") / "data" / "gateway-api.json").read_bytes()
    decoded: dict[str, Any] = msgspec.json.decode(data)
    return decoded


@cache
def extensions() -> tuple[dict[str, Any], ...]:
    """The CRDs of our own kinds."""
    folder = files("controller") / "data" / "extensions"
    return tuple(yaml.safe_load(file.read_text()) for file in sorted(folder.iterdir(), key=lambda file: file.name))


@cache
def _schema(kind: str, version: str) -> Schema | None:
    # Of the experimental channel, which has every field of the standard one and those that we understand besides.
    for crd in (*bundle()["experimental"], *extensions()):
        if crd["kind"] == "CustomResourceDefinition" and crd["spec"]["names"]["kind"] == kind:
            for served in crd["spec"]["versions"]:
                if served["name"] == version and served["served"]:
                    return Schema(served["schema"]["openAPIV3Schema"])
    return None


def fault_of_spec(kind: str, spec: Any) -> str:
    """What is wrong with the spec of one of our own kinds, by its CRD: it may have been stored under an older one."""
    schema = _schema(kind, KINDS[kind].versions[0])
    if schema is None:
        return ""
    try:
        document = Document("", {"kind": kind, "spec": deepcopy(spec)})  # it is given its defaults, which are not stored
        fault = next(schema.check(document), None)
    except (RecursionError, ValueError, OverflowError) as error:
        return f"spec: cannot be read: {error}."
    return f"{fault.field}: {fault.message}." if fault is not None else ""


class Schema:
    """One version of one CRD."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        plain = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        self._validator = jsonschema_rs.validator_for(plain)
        self._discreet = jsonschema_rs.validator_for(plain, mask="what was found")

    def check(self, document: Document) -> Iterator[DocumentFault]:
        """Unknown fields, then the schema; what passes gets its defaults and meets the CEL rules."""
        faults = list(_unknown(document, self._schema, document.value, ()))
        errors = zip(self._validator.iter_errors(document.value), self._discreet.iter_errors(document.value), strict=True)
        for plain, discreet in errors:
            path = tuple(plain.instance_path)
            error = discreet if self._is_secret(path, _at(document.value, path)) else plain
            faults.append(document.fault(path, _words(error.message, path, document.value, is_masked=error is discreet)))
        if faults:
            yield from faults
            return
        _default(self._schema, document.value)
        yield from _rules(document, self._schema, document.value, ())

    def _is_secret(self, path: Path, value: Any) -> bool:
        """Whether a field may hold a secret, or holds a field that may (`format: password`): then it is not quoted."""
        schema: Any = self._schema
        if sounds_secret(path):
            return True
        for part in path:
            if _is_password(schema):
                return True
            within = schema.get("properties", {}).get(part) if isinstance(part, str) else None
            within = within or schema.get("additionalProperties" if isinstance(part, str) else "items")
            if not isinstance(within, dict):
                return False
            schema = within
        return _is_password(schema) or (isinstance(value, dict | list) and _has_password(schema))


def _is_password(schema: dict[str, Any]) -> bool:
    return schema.get("format") == "password"


def _has_password(schema: Any) -> bool:
    """Somewhere within."""
    if isinstance(schema, list):
        return any(map(_has_password, schema))
    return isinstance(schema, dict) and (_is_password(schema) or any(map(_has_password, schema.values())))


_OTHER_TYPE: Final = re.compile(r'(.*) is not of type "(string|integer|number)"', re.DOTALL)


def _words(message: str, path: Path, value: Any, *, is_masked: bool) -> str:
    """jsonschema's words, which quote what was found: shortened where they would fill a page, and with what would work."""
    found = _at(value, path)
    other = _OTHER_TYPE.fullmatch(message)
    if other and isinstance(found, str | int | float):
        needed = other_type(other[2], found)
        if not needed.endswith("is needed"):  # it is known what was meant
            return f"found {shown(found, is_secret=is_masked)}; {needed}"
    shortened = message if len(message) < 300 else f"{message[:300]}…"
    return shortened + _hint(path, found)


def _hint(path: Path, weight: Any) -> str:
    """The original canary article wrote weights into `port`; say what was meant."""
    if len(path) >= 3 and path[-1] == "port" and path[-3] == "backendRefs" and type(weight) is int:
        return f'; if a share of the traffic was meant, write "weight: {weight}" and the Service\'s port here'
    return ""


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _unknown(document: Document, schema: dict[str, Any], value: Any, path: Path) -> Iterator[DocumentFault]:
    if isinstance(value, dict):
        properties: dict[str, Any] = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        if path == ("metadata",) or schema.get("x-kubernetes-preserve-unknown-fields"):
            return
        for name, inner in value.items():
            if name in properties:
                yield from _unknown(document, properties[name], inner, (*path, name))
            elif isinstance(extra, dict):
                yield from _unknown(document, extra, inner, (*path, name))
            elif properties and not extra:
                near = difflib.get_close_matches(name, properties, 1)
                known = f'did you mean "{near[0]}"?' if near else f"known here are {', '.join(sorted(properties))}"
                yield document.fault((*path, name), f"unknown field; {known}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from _unknown(document, schema["items"], item, (*path, index))


def _default(schema: dict[str, Any], value: Any) -> None:
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = msgspec.json.decode(msgspec.json.encode(inner["default"]))
            if name in value:
                _default(inner, value[name])
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _default(schema["items"], item)


# --- CEL --------------------------------------------------------------------------------------------------


def _rules(document: Document, schema: dict[str, Any], value: Any, path: Path) -> Iterator[DocumentFault]:
    rules = {rule["rule"]: rule.get("message") for rule in schema.get("x-kubernetes-validations", ())}
    for rule in failing(rules, value):
        yield document.fault(path, rules[rule] or f"fails {rule}")
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        for name, inner in value.items():
            following = schema.get("properties", {}).get(name, extra if isinstance(extra, dict) else None)
            if following:
                yield from _rules(document, following, inner, (*path, name))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from _rules(document, schema["items"], item, (*path, index))


__all__ = ["Schema", "Valid", "bundle", "extensions", "spelled", "validate"]
