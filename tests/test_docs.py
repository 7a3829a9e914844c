"""Documentation is held against the code: links, commands, generated pages, configs."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from histoproof.cli import app

from .conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
SOURCES = sorted(
    path
    for pattern in (
        "*.md",
        "*.toml",
        "*.cff",
        "Makefile",
        "docs/*",
        "configs/*",
        ".ci/*",
        "src/**/*.py",
        "src/**/*.yaml",
        "tests/*.py",
    )
    for path in REPOSITORY.glob(pattern)
    if path.is_file()
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_generated_pages_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.pages().items():
        assert (REPOSITORY / "docs" / name).read_text() == text, f"docs/{name} is out of date: run `make docs`"


@pytest.mark.parametrize("page", [*(p for p in PAGES if p.name != "cli.md"), *CONFIGS], ids=lambda p: p.name)
def test_commands_in_the_docs_exist_with_their_options(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    for line in re.findall(r"(?:^|`|#  +)(histoproof [a-z][^`\n]*)", page.read_text(), flags=re.M):
        words = shlex.split(line.split("#")[0].split(" ...")[0])
        command = root.commands.get(words[1])
        if command is not None and hasattr(command, "commands"):
            command = command.commands.get(words[2])
        assert command is not None, f"{page.name}: there is no command {line!r}"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, f"{page.name}: {line!r}"


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M))
    for page in [*PAGES, REPOSITORY / ".ci" / "run", REPOSITORY / ".github" / "workflows" / "ci.yml"]:
        used = set(re.findall(r"(?:`|^|run: )make ([a-z-]+)", page.read_text(), flags=re.M))
        assert used <= targets, page.name


def test_the_readme_has_the_two_commands() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_page_speaks_of_one_machine(path: Path) -> None:
    text = path.read_text()
    for folder in ("work", "farm", "root", "home"):
        assert f"/{folder}/" not in text, path
