"""A `.py` file beside YAML is a filter of its name, configured by the FilterConfig of that name."""

from __future__ import annotations

from pathlib import Path

import yaml

from controller.files.source import FileSource
from controller.state.world import World
from controller.translate import Translator
from gateway.snapshot import Script

GROUP = "extension.gateway.flomesh.io"
SOURCE = "from gateway.filters.api import config\nkeys = config.get('keys')\n"


def written(folder: Path, name: str, *objects: dict) -> None:
    (folder / name).write_text(yaml.safe_dump_all(objects))


def test_its_configuration_comes_changes_and_goes(tmp_path: Path) -> None:
    ref = {"type": "ExtensionRef", "extensionRef": {"group": GROUP, "kind": "Filter", "name": "api-key"}}
    written(
        tmp_path, "gateway.yaml",
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "gw"}, "spec": {
            "gatewayClassName": "fsm-gateway-cls", "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}]}},
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {
            "parentRefs": [{"name": "gw"}], "rules": [{"filters": [ref]}]}},
    )  # fmt: skip
    (tmp_path / "api-key.py").write_text(SOURCE)
    world = World()
    source, translator = FileSource(tmp_path, world), Translator(world)
    config = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "FilterConfig", "metadata": {"name": "api-key"}}

    def script() -> Script:
        source.load()
        translator.update()
        (parts,) = translator.parts.values()
        (found,) = (part for part in parts.values() if isinstance(part, Script))
        return found

    assert script().config == "{}"
    written(tmp_path, "config.yaml", {**config, "spec": {"config": "keys: [one]"}})
    assert script().config == '{"keys":["one"]}'
    written(tmp_path, "config.yaml", {**config, "spec": {"config": "keys: [two]"}})
    assert script().config == '{"keys":["two"]}'
    (tmp_path / "config.yaml").unlink()
    assert script().config == "{}"
    assert script().source == SOURCE
