"""A page for each kind of ours: its fields as the CRD has them, and an object from the examples.

python -m tools.reference          # writes docs/reference
python -m tools.reference --check  # says what would change
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
CRDS: Final = ROOT / "controller" / "data" / "extensions"
PAGES: Final = ROOT / "docs" / "reference"
REPEATED: Final = ("hostnames[].config", "http[].config", "grpc[].config", "ports[].config", "ports[].healthCheck")
MATCHES: Final = ("http[].match", "grpc[].match")  # the Gateway API's own


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    made = {}
    kinds: dict[str, list[str]] = {}
    for path in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        kind = crd["spec"]["names"]["kind"]
        made[f"{kind}.md"] = page(crd)
        kinds.setdefault(crd["spec"]["group"], []).append(f"[{kind}]({kind}.md)")
    lines = [
        "# Kinds",
        "",
        "What each does, and by which test that is known: [policies.md](../policies.md) and [filters.md](../filters.md).",
        "",
    ]
    for group, links in sorted(kinds.items()):
        lines += [f"- `{group}`: {', '.join(links)}"]
    made["README.md"] = "\n".join(lines) + "\n"
    return made


def page(crd: dict[str, Any]) -> str:
    """One kind: what it is, its fields, an example."""
    names, group = crd["spec"]["names"], crd["spec"]["group"]
    kind = names["kind"]
    version = crd["spec"]["versions"][-1]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    versions = ", ".join(f"`{group}/{one['name']}`" for one in crd["spec"]["versions"])
    scope = "" if crd["spec"]["scope"] == "Namespaced" else ", for all namespaces"
    lines = [f"# {kind}", "", f"{versions}{scope}. {spec.get('description', '')}", ""]
    lines += ["| field of `spec` | | default | |", "|---|---|---|---|"]
    lines += [
        f"| `{path}`{'*' if needed else ''} | {bounds(one)} | {default(one)} | {said(one)} |"
        for path, one, needed in fields(spec)
    ]
    lines += ["", "\\* is needed." + "".join(f" Checked as well: {rule}." for rule in own_rules(spec))]
    found = example(kind)
    if found is not None:
        file, text = found
        lines += ["", f"From [{file}](../../{file}):", "", "```yaml", text.strip(), "```"]
    lines += ["", "`kubectl explain " + names["singular"] + ".spec` says the same."]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """(path, schema, whether it is needed) of every field; what is the same at several places only at the first."""
    for name, one in schema.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        needed = name in schema.get("required", ())
        if where in REPEATED:
            repeated = f"{one.get('description', '')} As `{where.rpartition('.')[2]}`.".strip()
            yield where, {"type": "object", "description": repeated}, needed
            continue
        if where in MATCHES:
            yield where, {"type": "object", "description": "As in a route."}, needed
            continue
        yield where, one, needed
        yield from fields(one, where)
        yield from fields(one.get("items", {}), f"{where}[]")
        inner = one.get("additionalProperties")
        yield from fields(inner if isinstance(inner, dict) else {}, f"{where}.NAME")


def bounds(schema: dict[str, Any]) -> str:
    """The type, and what its values may be."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" if value else "(empty)" for value in schema["enum"])
    type_ = "any" if "type" not in schema else str(schema["type"])
    if "pattern" in schema and schema["pattern"].startswith("^([0-9]{1,5}(h|m|s|ms))"):
        return "duration"
    words = {"array": "list", "object": "", "string": "text", "integer": "number", "boolean": "true, false"}.get(type_, type_)
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{least} to {most:,}".replace(",", " ")
    if most := schema.get("maxItems"):
        return f"{words} of at most {most}"
    return words


def default(schema: dict[str, Any]) -> str:
    """What stands for a field that is not given."""
    if "default" not in schema or isinstance(schema["default"], dict):
        return ""
    value = schema["default"]
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "a line break" if text == "\n" else f"`{text}`" if text else "(empty)"


def said(schema: dict[str, Any]) -> str:
    """The description; what must hold of it besides."""
    words = [str(schema.get("description", "")), *(f"Checked: {rule}." for rule in own_rules(schema))]
    return " ".join(word for word in words if word).replace("|", "\\|").replace("\n", " ")


def own_rules(schema: dict[str, Any]) -> list[str]:
    """What the API server checks by CEL, in its words."""
    return [one["message"] for one in schema.get("x-kubernetes-validations", ())]


def example(kind: str) -> tuple[str, str] | None:
    """The first object of a kind in the examples, as it is written there."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for text in path.read_text().split("\n---\n"):
            if f"\nkind: {kind}\n" in f"\n{text}\n":
                return str(path.relative_to(ROOT)), text.removeprefix("---\n")
    return None


def main() -> None:
    """Write, or compare."""
    made = pages()
    there = {path.name: path.read_text() for path in PAGES.glob("*.md")} if PAGES.is_dir() else {}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        if stale:
            raise SystemExit(
                f"docs/reference: {', '.join(stale)}: not what the CRDs say; python -m tools.reference writes them anew"
            )
        return
    PAGES.mkdir(exist_ok=True)
    for name in there.keys() - made.keys():
        (PAGES / name).unlink()
    for name, text in made.items():
        (PAGES / name).write_text(text)


if __name__ == "__main__":
    main()
