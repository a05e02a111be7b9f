"""Filters of our own kinds: what an ExtensionRef leads to, as a part for data planes; and what to say of it.

A Filter names a definition (its source) and a configuration. It is one program of a data plane, however many rules
use it.
"""

from __future__ import annotations

import ast
import re
from base64 import b64decode
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec

from controller.files.validate import fault_of_spec
from controller.files.written import WrittenError, load
from controller.objects.base import EXTENSION_GROUP
from controller.objects.core import ConfigMap, Secret
from controller.objects.filters import (
    WRITTEN_AS_FILE,
    ExtensionRef,
    Filter,
    FilterConfig,
    FilterDefinition,
    FilterDefinitionSpec,
    ListenerFilter,
    NamespacedFilterDefinition,
    SecretKey,
    StoreSpec,
)
from controller.objects.kinds import SETTINGS
from controller.objects.references import ParametersRef
from controller.state.view import View, guarded
from controller.translate.shared import conditions
from controller.translate.shared.addresses import leads_home
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import FilterName
from controller.translate.shared.status import ExtensionStatus
from controller.translate.shared.written_text import config_faults
from gateway import snapshot
from gateway.base.durations import is_duration, seconds
from gateway.base.logs import whereto
from gateway.filters.builtin import BUILT_IN

Configured: TypeAlias = Filter | ListenerFilter
ASPECTS: Final = ("Listener", "Route")  # what a ListenerFilter stands before: connections, or routes
MAX_BUILT_IN_SECONDS: Final = 3600.0  # seconds that what comes with the gateway may take: as long as its own spec says
_UNITS: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def resolve(view: View, namespace: str, ref: ParametersRef) -> FilterName | Condition:
    """What an ExtensionRef of a route in this namespace leads to, or why nowhere."""
    if (ref.group, ref.kind) != (EXTENSION_GROUP, "Filter"):
        return conditions.unresolved(
            "InvalidKind", f'"{ref.group}/{ref.kind}" is no kind of filter; {EXTENSION_GROUP}/Filter is.'
        )
    if view.get(Filter, namespace, ref.name) is None:
        return conditions.unresolved("FilterNotFound", f'Filter "{namespace}/{ref.name}" does not exist.')
    part = view.call(script, namespace, ref.name, "Filter")
    if isinstance(part, str):
        return conditions.unresolved("FilterNotValid", f'Filter "{namespace}/{ref.name}": {part}')
    return FilterName(namespace, ref.name)


@guarded(lambda view, error, *_: f"cannot be used: {conditions.fault_of_ours(error)}")
def script(view: View, namespace: str, name: str, kind: str) -> snapshot.Script | str:
    """The part that data planes get, or what is wrong."""
    configured: Configured | None = None
    if kind == "Filter":
        configured = view.get(Filter, namespace, name)
    elif kind == "ListenerFilter":
        configured = view.get(ListenerFilter, namespace, name)
    if configured is None:
        return "it does not exist."
    if isinstance(configured, ListenerFilter) and configured.fault:
        return configured.fault
    if isinstance(configured, ListenerFilter) and configured.spec.aspect not in ASPECTS:
        return f'spec.aspect: found "{configured.spec.aspect}"; {" and ".join(ASPECTS)} are understood.'
    supplies = _supplies(view, configured)
    if isinstance(supplies, str):
        return supplies
    secrets, kept = supplies
    if configured.spec.definition_ref is None and configured.spec.type in BUILT_IN and BUILT_IN[configured.spec.type].kind:
        part = _built_in(view, configured)
        return part if isinstance(part, str) else msgspec.structs.replace(part, secrets=secrets, store=kept)
    definition = _definition(view, configured)
    if isinstance(definition, str):
        return definition
    is_own = configured.spec.definition_ref is not None and configured.spec.definition_ref.kind == "NamespacedFilterDefinition"
    source = _source(view, namespace if is_own else "", definition)
    if isinstance(source, tuple):
        return source[0]
    config = _config(view, configured)
    if isinstance(config, str):
        return config
    wrong = _misfit(definition, config)
    if wrong:
        return wrong
    memory = _bytes(definition.memory)
    if memory is None:
        return f'spec.memory of its definition: found "{definition.memory[:60]}"; such as 256Mi is needed.'
    if not is_duration(definition.timeout):
        return f'spec.timeout of its definition: found "{definition.timeout[:60]}"; such as 500ms or 2s is needed.'
    allowed = view.noted("setting", "inline filters")  # "allowed", or "default" where they are all meant to be
    execution = definition.execution or ("inline" if allowed == "default" else "process")
    if execution == "inline" and not allowed:
        return "spec.execution: inline is not allowed here (the controller's --allow-inline-filters would); process is."
    return snapshot.Script(
        name=str(FilterName(namespace, name, kind)),
        source=source,
        secrets=secrets,
        store=kept,
        config=msgspec.json.encode(config).decode(),
        execution="inline" if execution == "inline" else "process",
        passes=definition.failure_policy == "Open",
        seconds=seconds(definition.timeout),
        network=definition.network,
        memory=memory,
    )


def _bytes(text: str) -> int | None:
    match = re.fullmatch("([0-9]{1,6})(Ki|Mi|Gi)", text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def _supplies(view: View, configured: Configured) -> tuple[tuple[snapshot.Pair, ...], snapshot.Store | None] | str:
    """Its secrets and its store; or what is wrong with one."""
    secrets: list[snapshot.Pair] = []
    for index, entry in enumerate(configured.spec.secrets):
        value = secret(view, configured.metadata.namespace, entry.secret_ref)
        if value is None:
            return _no_secret(f"spec.secrets[{index}].secretRef", configured.metadata.namespace, entry.secret_ref)
        secrets.append((entry.name, value))
    if configured.spec.store is None:
        return tuple(secrets), None
    kept = store(view, configured.metadata.namespace, configured.spec.store, "spec.store")
    return kept if isinstance(kept, str) else (tuple(secrets), kept)


def store(view: View, namespace: str, asked: StoreSpec, field: str) -> snapshot.Store | str:
    """A store that a filter or a policy names; or what is wrong with it."""
    if leads_home(view, asked.host):
        return f'{field}.host: "{asked.host}" is the data plane itself.'
    password = ""
    if asked.password_ref is not None:
        text = secret(view, namespace, asked.password_ref)
        if text is None:
            return _no_secret(f"{field}.passwordRef", namespace, asked.password_ref)
        password = text
    return snapshot.Store(
        asked.host, asked.port, asked.database, asked.username, password, asked.tls, seconds=seconds(asked.timeout)
    )


def secret(view: View, namespace: str, ref: SecretKey) -> str | None:
    """The text of a key of a Secret; None where there is none."""
    resource = view.get(Secret, namespace, ref.name)
    try:
        if resource is not None and ref.key in (resource.string_data or {}):
            return (resource.string_data or {})[ref.key]
        return b64decode((resource.data or {})[ref.key]).decode() if resource is not None else None
    except (KeyError, ValueError):
        return None


def _no_secret(field: str, namespace: str, ref: SecretKey) -> str:
    return f'{field}: Secret "{namespace}/{ref.name}" with the key "{ref.key}", as text, is not there.'


def _built_in(view: View, configured: Configured) -> snapshot.Script | str:
    """A type that comes with the gateway, configured by an object of the kind of its name."""
    known, ref = BUILT_IN[configured.spec.type], configured.spec.config_ref
    kind = known.kind
    if ref is None or ref.kind != kind:
        return f"spec.configRef: a filter of type {configured.spec.type} needs one of kind {kind}."
    settings = view.get(SETTINGS[kind], configured.metadata.namespace, ref.name)
    if settings is None:
        return f'spec.configRef: {kind} "{configured.metadata.namespace}/{ref.name}" does not exist.'
    wrong = fault_of_spec(kind, settings.spec)
    if wrong := wrong or "; ".join(config_faults("spec", settings.spec)):
        return f'{kind} "{ref.name}", {wrong}'
    for field in ("target", "throttleHost"):
        asked = str(settings.spec.get(field, ""))
        try:
            host = urlsplit(asked if "://" in asked else f"//{asked}").hostname or ""
        except ValueError:
            return f'{kind} "{ref.name}", spec.{field}: "{whereto(asked)}" is no URL.'
        if leads_home(view, host):
            return f'{kind} "{ref.name}", spec.{field}: "{whereto(asked)}" is the data plane itself.'
    return snapshot.Script(
        name=str(FilterName(configured.metadata.namespace, configured.metadata.name, configured.ref.kind)),
        source="",
        built_in=configured.spec.type,
        config=msgspec.json.encode(settings.spec).decode(),
        execution="inline",
        seconds=MAX_BUILT_IN_SECONDS,
        passes=known.passes,
        network=("*",),  # whom it calls is in its spec
    )


def _definition(view: View, configured: Configured) -> FilterDefinitionSpec | str:
    ref = configured.spec.definition_ref
    if ref is None:
        known = ", ".join(name for name, built_in in BUILT_IN.items() if built_in.kind == name)
        return f'spec.definitionRef is missing, and "{configured.spec.type}" is no type that comes with the gateway ({known}).'
    definition: FilterDefinition | NamespacedFilterDefinition | None
    if ref.kind == "NamespacedFilterDefinition":
        definition = view.get(NamespacedFilterDefinition, configured.metadata.namespace, ref.name)
    else:
        definition = view.get(FilterDefinition, "", ref.name)
    if definition is None:
        return f'spec.definitionRef: {ref.kind or "FilterDefinition"} "{ref.name}" does not exist.'
    if definition.spec.type != configured.spec.type:
        return f'spec.type: found "{configured.spec.type}"; {ref.kind} "{ref.name}" is of type "{definition.spec.type}".'
    return definition.spec


def _source(view: View, namespace: str, definition: FilterDefinitionSpec) -> str | tuple[str]:
    """The source; in a tuple, what is wrong. A namespace's definition reads its own ConfigMaps; one for all says where."""
    ref = definition.config_map_ref
    if ref is None:
        return definition.script
    if namespace and ref.namespace not in ("", namespace):
        return (f'spec.configMapRef.namespace: found "{ref.namespace}"; its own namespace, "{namespace}", is needed.',)
    if not namespace and not ref.namespace:
        return ("spec.configMapRef.namespace: is missing; a definition for all namespaces says where its source is.",)
    name = f"{ref.namespace or namespace}/{ref.name}"
    config_map = view.get(ConfigMap, ref.namespace or namespace, ref.name)
    if config_map is None:
        return (f'spec.configMapRef: ConfigMap "{name}" does not exist.',)
    data = config_map.data or {}
    if ref.key not in data:
        return (
            f'spec.configMapRef.key: ConfigMap "{name}" has no key "{ref.key}"; it has {", ".join(sorted(data)) or "none"}.',
        )
    return data[ref.key]


def _config(view: View, configured: Configured) -> dict[str, Any] | str:
    ref, own = configured.spec.config_ref, configured.metadata
    if ref is None and own.labels == WRITTEN_AS_FILE and view.get(FilterConfig, own.namespace, own.name) is not None:
        ref = ExtensionRef(name=own.name, kind="FilterConfig")
    if ref is None:
        return {}
    config = view.get(FilterConfig, configured.metadata.namespace, ref.name)
    if config is None:
        return f'spec.configRef: FilterConfig "{configured.metadata.namespace}/{ref.name}" does not exist.'
    try:
        value = load(config.spec.config)
        msgspec.json.encode(value)
    except (WrittenError, TypeError, ValueError, OverflowError) as error:
        return f'FilterConfig "{ref.name}", spec.config: not YAML that filters can be given: {error}.'
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
    field = ".".join(map(str, error.instance_path))
    return f"spec.configRef: {field + ': ' if field else ''}{error.message}."


@guarded(lambda *_: None)
def status(view: View, namespace: str, name: str) -> ExtensionStatus | None:
    """What to say of a Filter: whether it can be used, and what the data planes that use it found."""
    configured = view.get(Filter, namespace, name)
    if configured is None:
        return None
    part = view.call(script, namespace, name, "Filter")
    return ExtensionStatus(configured.metadata.generation, (accepted(view, FilterName(namespace, name), part),))


def accepted(view: View, name: FilterName, outcome: snapshot.Script | str) -> Condition:
    """Whether what was made of a source can be used, also by the data planes that have it."""
    if isinstance(outcome, str):
        return conditions.filter_not_valid("Invalid", outcome)
    wrong = _syntax_fault(outcome)
    if wrong:
        return conditions.filter_not_valid("ScriptInvalid", wrong)
    for gateway in sorted(view.noted(f"gateways of {name.kind}", name.namespace, name.name)):
        report = view.noted("report", *gateway)
        for part, message in report.problems if report else ():
            if part == outcome.name:
                return conditions.filter_not_valid("ScriptInvalid", f"{message}; the last good one stays in force.")
    return conditions.filter_accepted()


def _syntax_fault(part: snapshot.Script) -> str:
    """What is wrong with a source before anybody runs it."""
    try:
        ast.parse(part.source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}; a source that was good before stays in force."
    except (ValueError, MemoryError, RecursionError) as error:
        return f"{type(error).__name__}: {re.sub('[^ -~]', ' ', str(error))}"
    return ""
