"""Last of all: what was made is removed, and the rest stays."""

from __future__ import annotations

from clusters import eventually, fsm, get, kubectl


async def test_uninstall_removes_what_install_made(installed: None) -> None:
    kubectl("create", "configmap", "somebody-elses", "-n", "fsm-system")
    done = fsm("uninstall", "mesh", "--force")
    assert "FSM [mesh name: fsm] in namespace [fsm-system] uninstalled" in done.stdout, done.stderr
    assert not get("deployment,service,serviceaccount,role", "-n", "fsm-system", "-l", "app.kubernetes.io/managed-by=fsm")[
        "items"
    ]
    await eventually(lambda: not get("gatewayclass")["items"])
    assert get("configmap", "somebody-elses", "-n", "fsm-system")
    assert get("crd", "gateways.gateway.networking.k8s.io")
    kubectl("delete", "namespace", "fsm-system", "--wait=false")
