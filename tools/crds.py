"""Writes the Gateway API's CRDs, without descriptions, as data: for offline validation, `fsm install` and the chart.

    python tools/crds.py v1.7.0

Needs Go, whose module proxy the files come from (module sigs.k8s.io/gateway-api, Apache-2.0).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

MODULE = "sigs.k8s.io/gateway-api"
ROOT = Path(__file__).parent.parent
DATA = ROOT / "controller" / "data" / "gateway-api.json"
CHART = ROOT / "charts" / "fsm" / "crds"


def module_folder(version: str) -> Path:
    """Where Go keeps the module's files; downloads them first."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GOFLAGS": "-mod=mod"}
        command = ["go", "mod", "download", "-json", f"{MODULE}@{version}"]
        # A module that wants a newer Go is downloaded all the same; only its "Dir" is left out of the answer.
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    return Path(cache) / f"{MODULE}@{version}"


def stripped(value: Any) -> Any:
    """Without the descriptions, which are nine tenths of the text (but not a property of that name)."""
    if isinstance(value, dict):
        return {k: stripped(v) for k, v in value.items() if not (k == "description" and isinstance(v, str))}
    if isinstance(value, list):
        return [stripped(item) for item in value]
    return value


def channel(folder: Path, name: str) -> list[dict[str, Any]]:
    """All objects of one channel, in the order of their files."""
    found = []
    for path in sorted((folder / "config" / "crd" / name).glob("gateway*.yaml")):
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if document:
                document.pop("status", None)
                found.append(stripped(document))
    return found


def main(version: str) -> None:
    """Write both channels as JSON, and the standard one as the chart's CRDs."""
    folder = module_folder(version)
    channels = {name: channel(folder, name) for name in ("standard", "experimental")}
    source = f"{MODULE}@{version} config/crd, descriptions left out; written by tools/crds.py"
    DATA.parent.mkdir(parents=True, exist_ok=True)
    DATA.write_text(json.dumps({"source": source, "version": version, **channels}, separators=(",", ":")) + "\n")
    CHART.mkdir(parents=True, exist_ok=True)
    for document in channels["standard"]:
        if document["kind"] == "CustomResourceDefinition":
            text = yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)
            (CHART / f"{document['spec']['names']['plural']}.yaml").write_text(f"# {source}\n{text}")
    print(f"{DATA}: {', '.join(f'{len(v)} {k}' for k, v in channels.items())}")


if __name__ == "__main__":
    main(sys.argv[1])
