"""DNSModifier: questions for the names that it lists are answered here (RFC 1035); all others go on to the backend.

A name may begin with a wildcard, as in zones (RFC 4592); the longest that fits counts. A listed name that has no address of
the type that is asked for has none: the answer is empty.
"""

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from gateway.filters.api import Datagram, config

TTL = 3600
# By name: addresses by type.
listed: dict[dns.name.Name, dict[str, list[str]]] = {}
zones = config.get("zones", [])
for zone in zones.values() if hasattr(zones, "values") else zones:
    for domain in zone.get("domains", ()):
        addresses = listed.setdefault(dns.name.from_text(domain["name"]).canonicalize(), {})
        for record in domain.get("answer", ()):
            addresses.setdefault(record.get("type", "A"), []).append(record["rdata"])


def datagram(datagram: Datagram) -> None:
    """Answer a question, if it is ours to answer."""
    if not datagram.from_client:
        return
    try:
        query = dns.message.from_wire(datagram.data)
    except dns.exception.DNSException:
        return  # whoever it was meant for will say what is wrong
    if len(query.question) != 1 or query.flags & dns.flags.QR:
        return
    (question,) = query.question
    addresses = found(question.name)
    if addresses is None:
        return
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.AA
    kind = dns.rdatatype.to_text(question.rdtype)
    if addresses.get(kind):
        answers = dns.rrset.from_text_list(question.name, TTL, dns.rdataclass.IN, question.rdtype, addresses[kind])
        response.answer.append(answers)
    datagram.answer(response.to_wire(max_size=query.payload or 512))


def found(name: dns.name.Name) -> dict[str, list[str]] | None:
    """What is listed for a name: itself, or the longest wildcard."""
    name = name.canonicalize()
    if name in listed:
        return listed[name]
    while name.labels != (b"",):
        name = name.parent()
        wildcard = dns.name.Name((b"*", *name.labels))
        if wildcard in listed:
            return listed[wildcard]
    return None
