"""What is written into a status: ours, and nothing of anybody else's."""

from __future__ import annotations

from support.statuses import NOW, THEN, route_status

from controller.kubernetes.status_writer import merged
from controller.objects.base import CONTROLLER
from controller.objects.gateways import RouteKind
from controller.translate.shared import conditions
from controller.translate.shared.status import (
    AncestorStatus,
    ClassStatus,
    ExtensionStatus,
    GatewayStatus,
    ListenerSetStatus,
    ListenerStatus,
    PolicyStatus,
)

FOREIGN = {"parentRef": {"name": "theirs"}, "controllerName": "example.com/other", "conditions": []}


def test_other_controllers_parents_stay() -> None:
    body = merged({"parents": [FOREIGN]}, route_status(), NOW)
    assert body["parents"][0] == FOREIGN
    ours = body["parents"][1]
    assert ours["controllerName"] == CONTROLLER
    assert ours["parentRef"] == {
        "name": "gw", "group": "gateway.networking.k8s.io", "kind": "Gateway", "sectionName": "http",
    }  # fmt: skip
    assert ours["conditions"][0]["observedGeneration"] == 2


def test_a_time_changes_only_with_a_status() -> None:
    first = merged({}, route_status(generation=1), THEN)
    again = merged(first, route_status(generation=2), NOW)
    (condition,) = again["parents"][0]["conditions"]
    assert (condition["lastTransitionTime"], condition["observedGeneration"]) == (THEN, 2)
    turned = merged(again, route_status(conditions.not_allowed("a", "HTTPRoute"), generation=3), NOW)
    assert turned["parents"][0]["conditions"][0]["lastTransitionTime"] == NOW


def test_writing_twice_changes_nothing() -> None:
    first = merged({"parents": [FOREIGN]}, route_status(), THEN)
    assert merged(first, route_status(), NOW) == first


def test_a_route_that_left_us_keeps_only_others() -> None:
    first = merged({"parents": [FOREIGN]}, route_status(), THEN)
    assert merged(first, None, NOW) == {"parents": [FOREIGN]}
    assert merged({}, None, NOW) == {}


def test_foreign_conditions_stay_and_our_old_ones_go() -> None:
    foreign = {"type": "example.com/Audited", "status": "True"}
    stale = {"type": "PartiallyInvalid", "status": "True", "lastTransitionTime": THEN}
    before = {
        "parents": [
            {
                "parentRef": {"name": "gw", "group": "gateway.networking.k8s.io", "kind": "Gateway", "sectionName": "http"},
                "controllerName": CONTROLLER,
                "conditions": [foreign, stale],
            }
        ]
    }
    said = merged(before, route_status(), NOW)["parents"][0]["conditions"]
    assert [condition["type"] for condition in said] == ["example.com/Audited", "Accepted"]


def test_gateway_and_class() -> None:
    listener = ListenerStatus("http", (RouteKind("HTTPRoute"),), 3, (conditions.listener_accepted(),))
    unknown = {
        "conditions": [{"type": "Accepted", "status": "Unknown", "lastTransitionTime": "1970-01-01T00:00:00Z"}],
        "attachedListenerSets": 0,
    }
    body = merged(unknown, GatewayStatus(1, (), (conditions.gateway_accepted(),), (listener,)), NOW)
    assert body["attachedListenerSets"] == 0
    assert body["conditions"][0]["lastTransitionTime"] == NOW
    assert body["listeners"][0]["attachedRoutes"] == 3
    assert body["listeners"][0]["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]
    said = merged({}, ClassStatus(1, (conditions.class_accepted("c"),), ("Gateway", "HTTPRoute")), NOW)
    assert said["supportedFeatures"] == [{"name": "Gateway"}, {"name": "HTTPRoute"}]


def test_a_listener_set() -> None:
    said = (conditions.route_accepted(),)
    foreign = {"type": "example.com/Seen", "status": "True"}
    listener = ListenerStatus("a", (RouteKind("HTTPRoute"),), 3, said)
    body = merged({"conditions": [foreign]}, ListenerSetStatus(4, said, (listener,)), NOW)
    assert [condition["type"] for condition in body["conditions"]] == ["example.com/Seen", "Accepted"]
    assert body["listeners"][0]["attachedRoutes"] == 3
    assert body["conditions"][1]["observedGeneration"] == 4


def test_a_policy_keeps_other_controllers_ancestors() -> None:
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "ns", "name": "gw"}
    foreign = {"ancestorRef": ref, "controllerName": "example.com/other", "conditions": []}
    status = PolicyStatus(2, (AncestorStatus(("ns", "gw"), (conditions.policy_accepted(),)),))
    body = merged({"ancestors": [foreign]}, status, NOW)
    assert body["ancestors"][0] == foreign
    assert (body["ancestors"][1]["ancestorRef"], body["ancestors"][1]["controllerName"]) == (ref, CONTROLLER)
    assert merged(body, status, THEN) == body
    assert merged(body, None, NOW) == {"ancestors": [foreign]}


def test_a_policy_of_ours_says_it_in_short_and_to_each_gateway() -> None:
    said = (conditions.policy_accepted(),)
    body = merged({}, ExtensionStatus(3, said, (AncestorStatus(("ns", "a"), said), AncestorStatus(("ns", "b"), said))), NOW)
    assert [one["ancestorRef"]["name"] for one in body["ancestors"]] == ["a", "b"]
    assert body["conditions"] == body["ancestors"][0]["conditions"]
    assert merged(body, ExtensionStatus(3, said), THEN)["ancestors"] == [], "no Gateway has anything to do with it any more"
    assert "ancestors" not in merged({}, ExtensionStatus(3, said), NOW), "a Filter is attached to nothing"
