"""Filters of our own kinds: what an ExtensionRef leads to, as a part for data planes; and what to say of it.

A Filter names a definition (its source) and a configuration. It is one program of a data plane, however many rules
use it.
"""

from __future__ import annotations

import ast
import re
from typing import Any, Final, NamedTuple

import jsonschema_rs
import msgspec
import yaml

from controller.memo import View
from controller.objects import (
    EXTENSION_GROUP,
    ConfigMap,
    FaultInjection,
    Filter,
    FilterConfig,
    FilterDefinition,
    FilterDefinitionSpec,
    NamespacedFilterDefinition,
    ParametersRef,
    RequestTermination,
    Settings,
)
from controller.translate import conditions
from controller.translate.conditions import Condition
from controller.translate.status import ExtensionStatus
from gateway import snapshot
from gateway.durations import seconds
from gateway.policies import BUILT_IN

SETTINGS: Final[dict[str, type[Settings]]] = {kind.__name__: kind for kind in (RequestTermination, FaultInjection)}
LONGEST: Final = 3600.0  # seconds that what comes with the gateway may take: as long as its own spec says
_UNITS: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


class FilterName(NamedTuple):
    """Names a Filter."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def resolve(view: View, namespace: str, ref: ParametersRef) -> FilterName | Condition:
    """What an ExtensionRef of a route in this namespace leads to, or why nowhere."""
    if (ref.group, ref.kind) != (EXTENSION_GROUP, "Filter"):
        return conditions.unresolved(
            "InvalidKind", f'"{ref.group}/{ref.kind}" is no kind of filter; {EXTENSION_GROUP}/Filter is.'
        )
    if view.get(Filter, namespace, ref.name) is None:
        return conditions.unresolved("FilterNotFound", f'Filter "{namespace}/{ref.name}" does not exist.')
    made = view.call(script, namespace, ref.name)
    if isinstance(made, str):
        return conditions.unresolved("FilterNotValid", f'Filter "{namespace}/{ref.name}": {made}')
    return FilterName(namespace, ref.name)


def script(view: View, namespace: str, name: str) -> snapshot.Script | str:
    """The part that data planes get, or what is wrong."""
    found = view.get(Filter, namespace, name)
    if found is None:
        return "it does not exist."
    if found.spec.definition_ref is None and found.spec.type in BUILT_IN:
        return _built_in(view, found)
    definition = _definition(view, found)
    if isinstance(definition, str):
        return definition
    source = _source(view, namespace, definition)
    if isinstance(source, tuple):
        return source[0]
    config = _config(view, found)
    if isinstance(config, str):
        return config
    wrong = _misfit(definition, config)
    if wrong:
        return wrong
    allowed = view.note("setting", "inline filters")  # "allowed", or "default" where they are all meant to be
    execution = definition.execution or ("inline" if allowed == "default" else "process")
    if execution == "inline" and not allowed:
        return "spec.execution: inline is not allowed here (the controller's --allow-inline-filters would); process is."
    return snapshot.Script(
        name=str(FilterName(namespace, name)),
        source=source,
        config=msgspec.json.encode(config).decode(),
        execution="inline" if execution == "inline" else "process",
        passes=definition.failure_policy == "Open",
        seconds=seconds(definition.timeout),
        network=definition.network,
        memory=int(definition.memory[:-2]) * _UNITS[definition.memory[-2:]],
    )


def _built_in(view: View, found: Filter) -> snapshot.Script | str:
    """A type that comes with the gateway, configured by an object of the kind of its name."""
    kind, ref = found.spec.type, found.spec.config_ref
    if ref is None or ref.kind != kind:
        return f"spec.configRef: a filter of type {kind} needs one of kind {kind}."
    settings = view.get(SETTINGS[kind], found.metadata.namespace, ref.name)
    if settings is None:
        return f'spec.configRef: {kind} "{found.metadata.namespace}/{ref.name}" does not exist.'
    return snapshot.Script(
        name=str(FilterName(found.metadata.namespace, found.metadata.name)),
        source="",
        built_in=kind,
        config=msgspec.json.encode(settings.spec).decode(),
        execution="inline",
        seconds=LONGEST,
    )


def _definition(view: View, found: Filter) -> FilterDefinitionSpec | str:
    ref = found.spec.definition_ref
    if ref is None:
        known = ", ".join(BUILT_IN)
        return f'spec.definitionRef is missing, and "{found.spec.type}" is no type that comes with the gateway ({known}).'
    definition: FilterDefinition | NamespacedFilterDefinition | None
    if ref.kind == "NamespacedFilterDefinition":
        definition = view.get(NamespacedFilterDefinition, found.metadata.namespace, ref.name)
    else:
        definition = view.get(FilterDefinition, "", ref.name)
    if definition is None:
        return f'spec.definitionRef: {ref.kind or "FilterDefinition"} "{ref.name}" does not exist.'
    if definition.spec.type != found.spec.type:
        return f'spec.type: found "{found.spec.type}"; {ref.kind} "{ref.name}" is of type "{definition.spec.type}".'
    return definition.spec


def _source(view: View, namespace: str, definition: FilterDefinitionSpec) -> str | tuple[str]:
    """The source; in a tuple, what is wrong."""
    ref = definition.config_map_ref
    if ref is None:
        return definition.script
    where = f"{ref.namespace or namespace}/{ref.name}"
    found = view.get(ConfigMap, ref.namespace or namespace, ref.name)
    if found is None:
        return (f'spec.configMapRef: ConfigMap "{where}" does not exist.',)
    data = found.data or {}
    if ref.key not in data:
        return (
            f'spec.configMapRef.key: ConfigMap "{where}" has no key "{ref.key}"; it has {", ".join(sorted(data)) or "none"}.',
        )
    return data[ref.key]


def _config(view: View, found: Filter) -> dict[str, Any] | str:
    ref = found.spec.config_ref
    if ref is None:
        return {}
    config = view.get(FilterConfig, found.metadata.namespace, ref.name)
    if config is None:
        return f'spec.configRef: FilterConfig "{found.metadata.namespace}/{ref.name}" does not exist.'
    try:
        value = yaml.safe_load(config.spec.config)
    except yaml.YAMLError as error:
        return f'FilterConfig "{ref.name}", spec.config: not YAML: {str(error).splitlines()[0]}.'
    if not isinstance(value, dict):
        return f'FilterConfig "{ref.name}", spec.config: found {type(value).__name__}; a mapping of names to values is needed.'
    return value


def _misfit(definition: FilterDefinitionSpec, config: dict[str, Any]) -> str:
    """What is wrong with a configuration, by its definition's schema."""
    if definition.parameters is None:
        return ""
    try:
        error = next(iter(jsonschema_rs.validator_for(definition.parameters).iter_errors(config)), None)
    except (ValueError, jsonschema_rs.ReferencingError) as broken:
        return f"spec.parameters of its definition is no JSON schema: {broken}."
    if error is None:
        return ""
    where = ".".join(map(str, error.instance_path))
    return f"spec.configRef: {where + ': ' if where else ''}{error.message}."


def status(view: View, namespace: str, name: str) -> ExtensionStatus | None:
    """What to say of a Filter: whether it can be used, and what the data planes that use it found."""
    found = view.get(Filter, namespace, name)
    if found is None:
        return None
    made = view.call(script, namespace, name)
    return ExtensionStatus(found.metadata.generation, (_accepted(view, namespace, name, made),))


def _accepted(view: View, namespace: str, name: str, made: snapshot.Script | str) -> Condition:
    if isinstance(made, str):
        return conditions.filter_not_valid("Invalid", made)
    wrong = syntax(made)
    if wrong:
        return conditions.filter_not_valid("ScriptInvalid", wrong)
    for where in sorted(view.note("gateways of filter", namespace, name)):
        report = view.note("report", *where)
        for part, message in report.problems if report else ():
            if part == made.name:
                return conditions.filter_not_valid("ScriptInvalid", f"{message}; the last good one stays in force.")
    return conditions.filter_accepted()


def syntax(made: snapshot.Script) -> str:
    """What is wrong with a source before anybody runs it."""
    try:
        ast.parse(made.source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}; a source that was good before stays in force."
    except (ValueError, MemoryError, RecursionError) as error:
        return f"{type(error).__name__}: {re.sub('[^ -~]', ' ', str(error))}"
    return ""
