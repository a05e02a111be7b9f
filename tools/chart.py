"""Writes the Helm chart's templates from the same source as `fsm install` (controller/deploy/install.py).

python tools/chart.py          # write
python tools/chart.py --check  # exit with 1 when the chart is not what it should be
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from controller.deploy import install
from controller.files.validate import extensions
from gateway import __version__

CHART = Path(__file__).parent.parent / "charts" / "fsm"

PLACEHOLDERS = install.Values(
    namespace="{{ .Release.Namespace }}",
    mesh_name="{{ .Values.fsm.meshName }}",
    image="{{ .Values.fsm.image }}",
    replicas="REPLICAS",
    version="{{ .Chart.AppVersion }}",
    inline_filters="{{ .Values.fsm.filters.allowInline }}",
)
SECRETS = """- apiGroups:
  - ''
  resources:
  - secrets
  verbs:
  - list
  - watch
"""
REPLICAS = "{{ if .Values.fsm.fsmGateway.enabled }}{{ .Values.fsm.replicas }}{{ else }}0{{ end }}"


EMPTY = "FSM_SECRET_NAMESPACES\n          value: ''\n"


def _text(obj: dict[str, Any]) -> str:
    return yaml.dump(obj, Dumper=yaml.CSafeDumper, sort_keys=False, width=200)


def templates() -> dict[str, str]:
    """The chart's files by name."""
    files: dict[str, str] = {}
    for obj in install.objects(PLACEHOLDERS):
        text = _text(obj).replace("replicas: REPLICAS", f"replicas: {REPLICAS}")
        if obj["kind"] == "ClusterRole":
            assert SECRETS in text
            text = text.replace(SECRETS, f"{{{{- if not .Values.fsm.secretNamespaces }}}}\n{SECRETS}{{{{- end }}}}\n")
        text = text.replace(EMPTY, f"{EMPTY[:-3]}'{{{{ join \",\" .Values.fsm.secretNamespaces }}}}'\n")
        files[f"templates/{obj['kind'].lower()}.yaml"] = (
            f"# Written by tools/chart.py from controller/deploy/install.py.\n{text}"
        )
    # Within a range, the values are the whole chart's.
    each = "---\n".join(map(_text, install.secrets_role(PLACEHOLDERS, "NAMESPACE"))).replace("{{ .", "{{ $.")
    files["templates/secrets.yaml"] = (
        "# Written by tools/chart.py from controller/deploy/install.py.\n{{- range .Values.fsm.secretNamespaces }}\n---\n"
        + each.replace("namespace: NAMESPACE", "namespace: '{{ . }}'")
        + "{{- end }}\n"
    )
    defaults: dict[str, Any] = {
        "fsm": {
            "meshName": "fsm",
            "image": install.Values().image,
            "replicas": 1,
            "fsmGateway": {"enabled": True},
            "filters": {"allowInline": False},
            "secretNamespaces": [],
        }
    }
    for crd in extensions():
        text = yaml.dump(crd, Dumper=yaml.CSafeDumper, sort_keys=False)
        files[f"crds/{crd['spec']['names']['plural']}.yaml"] = (
            f"# Copied by tools/chart.py from controller/data/extensions.\n{text}"
        )
    files["values.yaml"] = yaml.dump(defaults, sort_keys=False)
    files["Chart.yaml"] = yaml.dump(
        {
            "apiVersion": "v2",
            "name": "fsm",
            "description": "FSM Gateway: a Kubernetes Gateway API implementation in pure Python",
            "type": "application",
            "version": __version__,
            "appVersion": __version__,
        },
        sort_keys=False,
    )
    return files


def main() -> None:
    """Write or check."""
    check = "--check" in sys.argv
    stale = []
    for name, text in templates().items():
        path = CHART / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if check and stale:
        raise SystemExit(f"charts/fsm is not current ({', '.join(stale)}): run python tools/chart.py")


if __name__ == "__main__":
    main()
