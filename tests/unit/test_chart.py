"""The chart, rendered by as much of Helm's templates as it uses, gives the objects of `fsm install`; e2e asks Helm itself."""

from __future__ import annotations

import re

import pytest
import yaml

from controller.deploy import install
from controller.deploy.install import Values
from tools import chart


def rendered(text: str, values: Values) -> str:
    listed = bool(values.secret_namespaces)
    text = re.sub(
        r"\s*{{- range \.Values\.fsm\.secretNamespaces }}(.*?)\s*{{- end }}",
        lambda body: "".join(body[1].replace("{{ . }}", name).replace("{{ $.", "{{ .") for name in values.secret_namespaces),
        text, flags=re.DOTALL,
    )  # fmt: skip
    text = re.sub(
        r"\s*{{- if not \.Values\.fsm\.secretNamespaces }}(.*?)\s*{{- end }}",
        lambda body: "" if listed else body[1], text, flags=re.DOTALL,
    )  # fmt: skip
    for placeholder, value in {
        chart.REPLICAS: values.replicas,
        "{{ .Release.Namespace }}": values.namespace,
        "{{ .Values.fsm.meshName }}": values.mesh_name,
        "{{ .Values.fsm.image }}": values.image,
        "{{ .Chart.AppVersion }}": values.version,
        "{{ .Values.fsm.filters.allowInline }}": values.inline_filters,
        '{{ join "," .Values.fsm.secretNamespaces }}': ",".join(values.secret_namespaces),
    }.items():
        text = text.replace(placeholder, str(value))
    assert "{{" not in text
    return text


def by_name(objects: list[dict]) -> dict[tuple[str, ...], dict]:
    return {(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]): obj for obj in objects}


@pytest.mark.parametrize(
    "values",
    [
        Values(),
        Values(replicas=3, mesh_name="m", namespace="n", inline_filters="true"),
        Values(secret_namespaces=("a",)),
        Values(secret_namespaces=("a", "b", "c-d")),
    ],
)
def test_the_chart_gives_what_the_command_gives(values: Values) -> None:
    files = {name: text for name, text in chart.templates().items() if name.startswith("templates/")}
    made = [one for text in files.values() for one in yaml.safe_load_all(rendered(text, values)) if one]
    assert by_name(made) == by_name(install.objects(values))


@pytest.mark.parametrize(
    ("text", "names"), [("", ()), ("a", ("a",)), ("a, b,a", ("a", "b")), ("{a,b}", ("a", "b")), ("{}", ()), (",", ())]
)
def test_names_of_namespaces(text: str, names: tuple[str, ...]) -> None:
    assert install.namespaces(text) == names
