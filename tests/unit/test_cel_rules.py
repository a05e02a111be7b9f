"""Rules in CEL with Kubernetes' own functions: one line a function, and every rule of every CRD that ships here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from controller.files import cel_rules
from controller.files.cel_rules import FUNCTIONS, holds
from controller.files.validate import Valid, bundle, extensions, validate
from controller.objects.documents import Document

# What the library has of itself: macros, and CEL's standard functions.
STANDARD = {
    "all", "contains", "duration", "endsWith", "exists", "exists_one", "filter", "has", "hasValue", "int", "map", "matches", "size",
    "startsWith", "string",
}  # fmt: skip


def rules_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for rule in schema.get("x-kubernetes-validations", ()):
            yield rule["rule"]
        for inner in schema.values():
            yield from rules_of(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from rules_of(inner)


def test_every_rule_of_every_crd_can_be_evaluated() -> None:
    """Each compiles, and calls nothing that nobody here knows; rules of transitions are none of an object that is read."""
    crds = [*bundle()["standard"], *bundle()["experimental"], *extensions()]
    rules = {rule for crd in crds if crd["kind"] == "CustomResourceDefinition" for rule in rules_of(crd["spec"]["versions"])}
    assert len(rules) > 100
    transitions = {rule for rule in rules if "oldSelf" in rule}
    for rule in rules - transitions:
        assert cel_rules._compiled(rule) is not None, rule
        called = set(re.findall(r"([A-Za-z_0-9]+)\(", re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "''", rule)))
        assert not called - STANDARD - set(FUNCTIONS), rule
    assert transitions == {"self == oldSelf"}


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("self.substring(2) == 'example.com'", "*.example.com", True),
        ("self.substring(9) == ''", "short", False),  # out of range: a rule that cannot be evaluated fails
        ("self.split('/') == ['a', 'b', 'c']", "a/b/c", True),
        ("self.split('/', 2) == ['a', 'b/c']", "a/b/c", True),
        ("self.charAt(1) == 'b'", "abc", True),
        ("self.indexOf('c') == 2 && self.indexOf('x') == -1 && self.lastIndexOf('c') == 4", "abccc", True),
        ("self.find('[0-9]+') == '12' && self.findAll('[0-9]+') == ['12', '3']", "a12b3", True),
        ("self.lowerAscii() == 'ä-a' && self.upperAscii() == 'ä-A'", "ä-A", True),
        ("self.replace('a', 'b') == 'bb' && self.replace('a', 'b', 1) == 'ba'", "aa", True),
        ("self.trim().reverse() == 'ba'", " ab ", True),
        ("self.join('-') == 'b-a' && !self.isSorted() && self.min() == 'a' && self.max() == 'b'", ["b", "a"], True),
        ("self.sum() == 6 && sets.contains(self, [1]) && !sets.intersects(self, [9])", [1, 2, 3], True),
        ("isIP(self) && ip(self).family() == 6 && ip(self).isLoopback()", "::1", True),
        ("isIP(self)", "10.0.0.256", False),
        ("isIP(self)", "fe80::1%eth0", False),
        ("isCIDR(self) && cidr(self).containsIP('10.1.2.3') && !cidr(self).containsIP(ip('192.0.2.1'))", "10.0.0.0/8", True),
        ("cidr(self).containsCIDR('10.1.0.0/16') && cidr(self).prefixLength() == 8", "10.0.0.0/8", True),
        ("isCIDR(self)", "10.0.0.0", False),
        ("isURL(self) && url(self).getHostname() == 'a.example' && url(self).getPort() == '8443'", "https://a.example:8443/x", True),
        ("isURL(self)", "a.example", False),
        ("isURL(self)", "http://a:99999/", False),
        ("isQuantity(self) && quantity(self).isLessThan(quantity('1Gi'))", "200Mi", True),
        ("quantity(self).compareTo(quantity('0.1')) == 0", "100m", True),
        ("isQuantity(self)", "200MB", False),
        ("format.dns1123Label().validate(self).hasValue()", "Not_One", True),
        ("!format.dns1123Subdomain().validate(self).hasValue()", "a.b-c.example", True),
        ("!format.qualifiedName().validate(self).hasValue()", "example.com/Some_Name", True),
        ("!format.qualifiedName().validate(self).hasValue()", "example.com/", False),
        ("self.nothing == 1", {}, False),
    ],
)  # fmt: skip
def test_functions(rule: str, value: Any, expected: bool) -> None:
    assert holds(rule, value) is expected


def test_a_rule_that_nobody_here_can_evaluate_is_told_once_and_refuses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert holds("fancyNewFunction(self)", "x")
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "a rule is left to the API server, as it cannot be evaluated here"
    ]


@pytest.mark.parametrize(
    ("hostname", "is_valid"),
    [("*.example.com", True), ("a.example.com", True), ("a.*.com", False), ("*.Ä.example", False), ("10.0.0.1", False)],
)
def test_hostnames_of_tlsroutes(hostname: str, is_valid: bool) -> None:
    spec = {"hostnames": [hostname], "rules": [{"backendRefs": [{"name": "a", "port": 443}]}]}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": {"name": "r"}, "spec": spec}
    assert isinstance(validate(Document("", route)), Valid) is is_valid
