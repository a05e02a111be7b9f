"""A source is written where it stands, and nothing else of the file changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.objects.base import Ref
from controller.standalone.source_editor import SourcePlace, digest_of, replaced

DEFINITION = Ref("FilterDefinition", "", "greeting")
SCRIPT = ("spec", "script")
BEFORE = """\
# who wrote this
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: extension.gateway.flomesh.io/v1alpha1
kind: FilterDefinition
metadata:
    name: greeting   # four columns here
spec:
    type: Greeting
    # what it does
    script: |
        def request(request):
            pass

    # how long
    timeout: 1s
"""


def place(path: tuple = SCRIPT, ref: Ref = DEFINITION, file: str = "filters.yaml") -> SourcePlace:
    return SourcePlace(ref, path, Path(file), "")


def test_lines_in_yaml_keep_their_neighbours() -> None:
    assert replaced(
        BEFORE, place(), "def request(request):\n    request.headers['X'] = '1'\n\n\ndef test_x():\n    pass\n"
    ) == (
        BEFORE.replace(
            """\
    script: |
        def request(request):
            pass
""",
            """\
    script: |
      def request(request):
          request.headers['X'] = '1'


      def test_x():
          pass
""",
        )
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{kind: FilterDefinition, metadata: {name: greeting}, spec: {script: 'a = 1', timeout: 1s}}", '"b\\n"'),
        ('{"kind": "FilterDefinition", "metadata": {"name": "greeting"}, "spec": {"script": "a"}}', '"b\\n"'),
        ("kind: FilterDefinition\nmetadata: {name: greeting}\nspec:\n  script: a = 1 # one\n  timeout: 1s\n", "|\n    b\n # one\n"),
        ("kind: FilterDefinition\nmetadata: {name: greeting}\nspec:\n  script: |-\n    a = 1", "script: |\n    b"),
        ("kind: List\nitems:\n- kind: FilterDefinition\n  metadata: {name: greeting}\n  spec:\n    script: a\n", "script: |\n      b\n"),
    ],
)  # fmt: skip
def test_wherever_it_stands(written: str, expected: str) -> None:
    if "# one" in written:
        expected = '"b\\n" # one'  # a note behind it would become part of lines
    assert expected.strip("\n") in replaced(written, place(), "b\n")


@given(st.text())
def test_any_text_comes_back_as_it_was(text: str) -> None:
    result = replaced(BEFORE, place(), text)
    assert list(yaml.safe_load_all(result))[1]["spec"] == {"type": "Greeting", "script": text, "timeout": "1s"}
    assert result.startswith(BEFORE[: BEFORE.index("script:")])
    assert result.endswith("    # how long\n    timeout: 1s\n")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (BEFORE.replace("greeting", "farewell"), "does not define FilterDefinition greeting any more"),
        (BEFORE + "---\na: [\n", "mend it first"),
        (BEFORE.replace("script: |", "script: &same |").replace("timeout: 1s", "type2: *same"), "cannot be changed alone"),
    ],
)
def test_what_cannot_be_done_is_said(written: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replaced(written, place(), "b\n")


def test_line_ends_stay_what_they_are() -> None:
    assert replaced("a = 1\r\n", place(file="greeting.py"), "b = 1\nc = 2\n") == "b = 1\r\nc = 2\r\n"
    assert "\n" not in replaced(BEFORE.replace("\n", "\r\n"), place(), "b\nc\n").replace("\r\n", "")


def test_digests_tell_texts_apart() -> None:
    assert digest_of("a") != digest_of("b")
