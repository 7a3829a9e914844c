"""Write the generated pages, docs/cli.md and docs/config.md, from the code. `make docs` runs it; a test holds them together."""

import json
import os
from pathlib import Path
from typing import Any

os.environ |= {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}

import typer.main

from histoproof.cli import app
from histoproof.config import Config, describe

HERE = Path(__file__).parent


def cli_page() -> str:
    """Every command's --help."""
    root: Any = typer.main.get_command(app)
    parts = ["# Commands\n", "Written by `make docs` from `--help`.\n", _help(root, "histoproof")]
    for name, command in root.commands.items():
        parts.append(_help(command, f"histoproof {name}"))
        parts += [_help(sub, f"histoproof {name} {inner}") for inner, sub in getattr(command, "commands", {}).items()]
    return "\n".join(parts)


def config_page() -> str:
    """Every key, its valid values, its default and what it means."""
    schema = Config.model_json_schema()
    parts = [
        "# Configuration\n",
        "Written by `make docs` from `histoproof/config.py`. Every key may be replaced on the command line: "
        "`--set optim.lr=0.01`.\n",
        "| key | valid | default | |\n|---|---|---|---|",
        f"| `seed` | {describe(schema['properties']['seed'])} | 42 | Rules every random number of a run. |\n",
    ]
    for name, field in schema["properties"].items():
        if name != "seed":
            parts += _section(name, field, schema["$defs"])
    return "\n".join(parts) + "\n"


def _help(command: Any, name: str) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    return f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n"


def _section(name: str, field: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    options = field.get("oneOf") or [field]
    parts = [f"## {name}\n"]
    if len(options) > 1:
        names = ", ".join(f"`{n}`" for n in field["discriminator"]["mapping"])
        parts.append(f"`{name}.name` is one of {names}; each has keys of its own.\n")
    for option in options:
        definition = definitions[option["$ref"].rsplit("/", 1)[1]]
        parts += _table(name, definition, definitions, heading=len(options) > 1)
    return parts


def _table(name: str, definition: dict[str, Any], definitions: dict[str, Any], *, heading: bool) -> list[str]:
    properties = definition["properties"]
    kind = properties.get("name", {})
    title = f"### {name}: {kind.get('const') or ', '.join(kind.get('enum', []))}\n\n" if heading else ""
    rows = [f"{title}{' '.join(definition['description'].split())}\n"]
    keys = {k: f for k, f in properties.items() if not (heading and k == "name")}
    if keys:
        rows.append("| key | valid | default | |\n|---|---|---|---|")
    nested: list[str] = []
    for key, field in keys.items():
        if "$ref" in field:
            inner = definitions[field["$ref"].rsplit("/", 1)[1]]
            nested += [f"\n#### {name}.{key}\n", *_table(f"{name}.{key}", inner, definitions, heading=False)]
            continue
        default = "required" if "default" not in field else _yaml(field["default"])
        meaning = " ".join(field.get("description", "").split())
        rows.append(f"| `{name}.{key}` | {describe(field)} | {default} | {meaning} |")
    return [*rows, *nested, ""]


def _yaml(value: Any) -> str:
    return json.dumps(value).strip('"')


def pages() -> dict[str, str]:
    """{file name: text} of every generated page."""
    return {"cli.md": cli_page(), "config.md": config_page()}


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text)
