"""What the API server refuses of Services and EndpointSlices beside their types: rules that stand in its code, not in a schema.

From `ValidateService` (pkg/apis/core/validation) and `ValidateEndpointSlice` (pkg/apis/discovery/validation) of Kubernetes.
Loopback addresses are taken, which the API server does not take: here no pods run, and backends are processes of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from controller.objects.conversion import quoted
from controller.objects.core import EndpointSlice, Service, ServicePort, SlicePort
from controller.objects.documents import Document, DocumentFault, Path
from controller.objects.naming import LABEL_RULE, fits

MAX_ENDPOINTS: Final = 1000
MAX_ADDRESSES: Final = 100  # of an endpoint
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
ADDRESS_TYPES: Final = ("IPv4", "IPv6", "FQDN")
SERVICE_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")


def faults(found: Any, document: Document) -> Iterator[DocumentFault]:
    """What is wrong with an object of Kubernetes' own, in words that say what would work."""
    match found:
        case EndpointSlice():
            made = _slice(found, document.value)
        case Service():
            made = _service(found)
        case _:
            return
    for path, words in made:
        yield document.fault(path, words)


def _slice(found: EndpointSlice, written: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    if "addressType" not in written:
        yield ("addressType",), f"is missing; {_one_of(ADDRESS_TYPES)} is needed"
        return
    if found.address_type not in ADDRESS_TYPES:
        yield ("addressType",), f"found {quoted(found.address_type)}; {_one_of(ADDRESS_TYPES)} is needed"
        return
    yield from _ports(found.ports or (), ("ports",))
    endpoints = found.endpoints or ()
    if len(endpoints) > MAX_ENDPOINTS:
        yield (
            ("endpoints",),
            f"found {len(endpoints)}; at most {MAX_ENDPOINTS} are taken: write the others into another EndpointSlice",
        )
    for index, endpoint in enumerate(endpoints):
        where: Path = ("endpoints", index, "addresses")
        if not 1 <= len(endpoint.addresses) <= MAX_ADDRESSES:
            yield where, f"found {len(endpoint.addresses) or 'none'}; 1 to {MAX_ADDRESSES} are needed"
        for place, address in enumerate(endpoint.addresses):
            words = _address_fault(found.address_type, address)
            if words:
                yield (*where, place), f"found {quoted(address)}; {words}"


def _address_fault(type_: str, address: str) -> str:
    """Why an address cannot be one of this type."""
    if type_ == "FQDN":
        good = fits("dns1123Subdomain", address.removesuffix(".")) and ("." in address or address == "localhost")
        return "" if good else "with addressType FQDN a name such as app.example.com is needed"
    try:
        parsed = ip_address(address)
    except ValueError:
        by_name = (
            "; for names, write addressType: FQDN" if fits("dns1123Subdomain", address) and not _is_number(address) else ""
        )
        return f"with addressType {type_} an {type_} address is needed{by_name}"
    if isinstance(parsed, IPv6Address) and (parsed.ipv4_mapped or "%" in address):
        better = f": write {parsed.ipv4_mapped}, with addressType IPv4" if parsed.ipv4_mapped else ", without a zone"
        return f"with addressType {type_} a plain {type_} address is needed{better}"
    if isinstance(parsed, IPv4Address) != (type_ == "IPv4"):
        return f"with addressType {type_} an {type_} address is needed; this one is IPv{parsed.version}"
    for special, is_special in (
        ("an unspecified", parsed.is_unspecified),
        ("a link-local", parsed.is_link_local),
        ("a multicast", parsed.is_multicast),
    ):
        if is_special:
            return f"{special} address is no endpoint's"
    return ""


def _is_number(address: str) -> bool:
    return address.replace(".", "").isdecimal()


def _service(found: Service) -> Iterator[tuple[Path, str]]:
    spec = found.spec
    if spec.type not in SERVICE_TYPES:
        yield ("spec", "type"), f"found {quoted(spec.type)}; {_one_of(SERVICE_TYPES)} is needed"
    if spec.type == "ExternalName":
        name = spec.external_name.removesuffix(".")
        if not fits("dns1123Subdomain", name):
            found_ = f"found {quoted(name)}" if name else "is missing"
            yield ("spec", "externalName"), f"{found_}; with type ExternalName a name such as app.example.com is needed"
    elif not spec.ports and spec.cluster_ip != "None":
        yield ("spec", "ports"), "names no port; one is needed, but for a Service with clusterIP: None"
    yield from _ports(spec.ports, ("spec", "ports"))
    seen: dict[tuple[int, str], int] = {}
    for index, port in enumerate(spec.ports):
        other = seen.setdefault((port.port, port.protocol), index)
        if other != index:
            yield ("spec", "ports", index, "port"), f"found {port.port}, which ports[{other}] has for {port.protocol} as well"


def _ports(ports: Sequence[ServicePort | SlicePort], where: Path) -> Iterator[tuple[Path, str]]:
    names: dict[str, int] = {}
    for index, port in enumerate(ports):
        name = port.name or ""
        if name and not fits("dns1123Label", name):
            yield (*where, index, "name"), f"found {quoted(name)}; {LABEL_RULE}"
        elif names.setdefault(name, index) != index or (not name and len(ports) > 1 and where[0] == "spec"):
            used = f"found {quoted(name)}, as ports[{names[name]}] has it" if name else "is missing"
            yield (*where, index, "name"), f"{used}; of several ports each needs a name of its own"
        if port.protocol is not None and port.protocol not in PROTOCOLS:
            yield (*where, index, "protocol"), f"found {quoted(port.protocol)}; {_one_of(PROTOCOLS)} is needed"


def _one_of(known: Sequence[str]) -> str:
    return f"{', '.join(known[:-1])} or {known[-1]}"
