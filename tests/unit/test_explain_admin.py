"""`fsm explain --admin`: where nothing matches, that not all is in force as written, if the gateway knows."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from controller.cli.app import app


@pytest.mark.parametrize(
    ("faults", "says"),
    [(b'[{"file": "a.yaml"}, {"file": "b.yaml"}]', True), (b"[]", False), (b"nonsense", False), (None, False)],
)
def test_a_gateway_that_knows_of_faults_is_named(faults: bytes | None, says: bool) -> None:
    class Admin(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = faults if self.path == "/faults" else b'{"parts": []}'
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Admin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        admin = f"127.0.0.1:{server.server_port}"
        found = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["explain", "http://a.example/", "--admin", admin])
        server.shutdown()
    assert found.exit_code == 1
    assert "there is no listener at all" in found.stdout
    assert (f"http://{admin}/faults says what is wrong (2)" in found.stdout) == says
