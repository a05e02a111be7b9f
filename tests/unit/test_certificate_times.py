"""A certificate whose time is up, or soon will be, is told; it is shown all the same, as nothing better is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trustme
from support.objects import gateway, obj, world

from controller.objects.base import Ref
from controller.translate import translate
from controller.translate.shared.status import GatewayStatus


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (-400, -1, "its certificate expired on "),
        (-10, 3, "its certificate expires on "),
        (2, 300, "its certificate is not good before "),
        (-10, 300, ""),
    ],
)
def test_times(begins: int, ends: int, words: str) -> None:
    now = datetime.now(UTC)
    issued = trustme.CA().issue_cert("a.example", not_before=now + timedelta(days=begins), not_after=now + timedelta(days=ends))
    chain = b"".join(one.bytes() for one in issued.cert_chain_pems).decode()
    secret = obj(
        "Secret",
        "c",
        type="kubernetes.io/tls",
        stringData={"tls.crt": chain, "tls.key": issued.private_key_pem.bytes().decode()},
    )
    listener = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}}
    made = translate(world(gateway("gw", listener), secret))
    status = made.statuses[Ref("Gateway", "default", "gw")]
    assert isinstance(status, GatewayStatus)
    (resolved,) = (one for one in status.listeners[0].conditions if one.type == "ResolvedRefs")
    assert resolved.is_true
    assert bool(resolved.fault) is bool(words)
    assert words in resolved.message
    (parts,) = made.parts.values()
    assert ("certificate", "default/c") in parts
