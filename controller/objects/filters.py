"""Filters in Python: what a Filter or ListenerFilter runs, with which settings, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from controller.objects.base import EXTENSION_GROUP, FAULT, GATEWAY_GROUP, Key, Object, Port, Struct
from gateway.base import durations

WRITTEN_AS_FILE: Final = {"gateway.flomesh.io/written-as": "file"}  # labels of a Filter that a `.py` file stands for


class ExtensionRef(Struct, frozen=True):
    """A reference to one of our own kinds, in the same namespace unless the kind has none."""

    name: str
    group: str = EXTENSION_GROUP
    kind: str = ""


class SecretKey(Struct, frozen=True):
    """A key of a Secret in the same namespace."""

    name: str
    key: str


class SecretUse(Struct, frozen=True):
    """A secret, and the name by which a filter knows it."""

    name: str
    secret_ref: SecretKey


class StoreSpec(Struct, frozen=True):
    """A Redis or Valkey that all replicas share."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Port = 6379
    database: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    username: str = ""
    password_ref: SecretKey | None = None
    tls: bool = False
    timeout: Annotated[str, msgspec.Meta(pattern=rf"^{durations.PATTERN}\Z")] = "200ms"


class FilterSpec(Struct, frozen=True):
    """What a filter is, and what it is given."""

    type: str = ""
    definition_ref: ExtensionRef | None = None
    config_ref: ExtensionRef | None = None
    secrets: tuple[SecretUse, ...] = ()
    store: StoreSpec | None = None

    def secret_names(self) -> Iterator[str]:
        """The Secrets that it names."""
        for secret in self.secrets:
            yield secret.secret_ref.name
        if self.store is not None and self.store.password_ref is not None:
            yield self.store.password_ref.name


class Filter(Object, frozen=True):
    """extension.gateway.flomesh.io Filter: what an ExtensionRef of a route names."""

    spec: FilterSpec = FilterSpec()

    def secret_names(self) -> Iterator[str]:
        return self.spec.secret_names()


class ListenerTarget(Struct, frozen=True):
    """A Gateway's port; all of its ports where none is given."""

    name: str
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    port: Port | None = None


class ListenerFilterSpec(FilterSpec, frozen=True):
    """A filter for whole listeners."""

    priority: int = 100
    aspect: str = "Listener"
    target_refs: tuple[ListenerTarget, ...] = ()


class ListenerFilter(Object, frozen=True):
    """extension.gateway.flomesh.io ListenerFilter: for the connections of a Gateway, or all of its requests."""

    spec: ListenerFilterSpec = ListenerFilterSpec()
    fault: str = msgspec.field(default="", name=FAULT)  # what of it cannot be read

    def index_keys(self) -> Iterator[Key]:
        for target in self.spec.target_refs:
            if (target.group, target.kind) == (GATEWAY_GROUP, "Gateway"):
                yield "listener filters of", self.metadata.namespace, target.name

    def secret_names(self) -> Iterator[str]:
        return self.spec.secret_names()


class RuleTarget(Struct, frozen=True):
    """A rule of a TCPRoute or UDPRoute, by its name; all of its rules where none is given."""

    kind: str
    name: str
    group: str = GATEWAY_GROUP
    rule: str = ""


class RuleFilterRef(Struct, frozen=True):
    """A Filter; those of low priority come first."""

    name: str
    group: str = EXTENSION_GROUP
    kind: str = "Filter"
    priority: int = 100


class RouteRuleFilterPolicySpec(Struct, frozen=True):
    """Filters for rules that have no place for them."""

    target_refs: tuple[RuleTarget, ...] = ()
    filter_refs: tuple[RuleFilterRef, ...] = ()


class RouteRuleFilterPolicy(Object, frozen=True):
    """gateway.flomesh.io RouteRuleFilterPolicy."""

    spec: RouteRuleFilterPolicySpec = RouteRuleFilterPolicySpec()
    fault: str = msgspec.field(default="", name=FAULT)  # what of it cannot be read

    def index_keys(self) -> Iterator[Key]:
        for rule in self.spec.target_refs:
            yield "rule filters of", rule.kind, self.metadata.namespace, rule.name


class SourceRef(Struct, frozen=True):
    """A key of a ConfigMap that holds a source."""

    name: str
    key: str
    namespace: str = ""


class FilterDefinitionSpec(Struct, frozen=True):
    """A filter's source and how it runs."""

    type: str = ""
    script: str = ""
    config_map_ref: SourceRef | None = None
    parameters: dict[str, Any] | None = None
    execution: str = ""
    failure_policy: str = "Closed"
    timeout: str = "1s"
    memory: str = "256Mi"
    network: tuple[str, ...] = ()


class FilterDefinition(Object, frozen=True):
    """extension.gateway.flomesh.io FilterDefinition, for every namespace."""

    spec: FilterDefinitionSpec = FilterDefinitionSpec()


class NamespacedFilterDefinition(Object, frozen=True):
    """extension.gateway.flomesh.io NamespacedFilterDefinition, for its own namespace."""

    spec: FilterDefinitionSpec = FilterDefinitionSpec()


class FilterConfigSpec(Struct, frozen=True):
    """YAML."""

    config: str = ""


class FilterConfig(Object, frozen=True):
    """extension.gateway.flomesh.io FilterConfig."""

    holds_secrets = True

    spec: FilterConfigSpec = FilterConfigSpec()


class Settings(Object, frozen=True):
    """One of our own kinds whose spec is, as it stands, what its filter is configured with."""

    spec: Any = None


class RequestTermination(Settings, frozen=True):
    """extension.gateway.flomesh.io RequestTermination."""


class FaultInjection(Settings, frozen=True):
    """extension.gateway.flomesh.io FaultInjection."""


class RateLimit(Settings, frozen=True):
    """extension.gateway.flomesh.io RateLimit."""


class ExternalRateLimit(Settings, frozen=True):
    """extension.gateway.flomesh.io ExternalRateLimit."""


class CircuitBreaker(Settings, frozen=True):
    """extension.gateway.flomesh.io CircuitBreaker."""


class IPRestriction(Settings, frozen=True):
    """extension.gateway.flomesh.io IPRestriction."""


class ConcurrencyLimit(Settings, frozen=True):
    """extension.gateway.flomesh.io ConcurrencyLimit."""


class HTTPLog(Settings, frozen=True):
    """extension.gateway.flomesh.io HTTPLog."""

    holds_secrets = True


class Metrics(Settings, frozen=True):
    """extension.gateway.flomesh.io Metrics."""


class Zipkin(Settings, frozen=True):
    """extension.gateway.flomesh.io Zipkin."""

    holds_secrets = True


class ProxyTag(Settings, frozen=True):
    """extension.gateway.flomesh.io ProxyTag."""


class DNSModifier(Settings, frozen=True):
    """extension.gateway.flomesh.io DNSModifier."""
