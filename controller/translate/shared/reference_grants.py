"""ReferenceGrant: whether a reference may cross into another namespace. Grants add up; none is inherited."""

from __future__ import annotations

from controller.objects.kinds import KINDS
from controller.objects.references import ReferenceGrant
from controller.state.view import View


def permitted(view: View, from_kind: str, from_namespace: str, to_group: str, to_kind: str, namespace: str, name: str) -> bool:
    """Whether an object of a kind in one namespace may refer to an object in another."""
    if from_namespace == namespace:
        return True
    for ref in view.index("grants", namespace):
        grant = view.get(ReferenceGrant, ref.namespace, ref.name)
        if grant is None:
            continue
        from_matches = any(
            (f.group, f.kind, f.namespace) == (KINDS[from_kind].group, from_kind, from_namespace) for f in grant.spec.from_
        )
        to_matches = any((t.group, t.kind) == (to_group, to_kind) and t.name in ("", name) for t in grant.spec.to)
        if from_matches and to_matches:
            return True
    return False
