"""Arrows point down only. Who may import whom stands in this table, so that a new arrow is seen in review."""

import ast
from pathlib import Path

import pytest

from .conftest import REPOSITORY

# From the ground up: a module may import those on the lines above its own, and its neighbours within one package.
LAYERS = [
    {"errors", "__init__"},
    {"rng", "files", "yamlfile", "signals", "progress", "world", "cores"},
    {"config", "provenance", "bootstrap"},
    {"runs", "specfile"},
    {"augment", "drawing", "ledger", "metrics", "rules"},
    {"calibration", "delong", "mcnemar", "threshold"},
    {"compare"},
    {"models", "compute", "checkpoint"},
    {"data", "recorder", "drawing", "optim"},
    {"factors", "first_layer"},
    {"shards", "inference", "experiment"},
    {"frozen"},
    {"evaluate", "predict", "diff", "spikes"},
    {"loop", "track", "slices", "drift"},
    {"train", "bench"},
    {"twin", "seeds", "dose", "search"},
    {"champion"},
    {"journal"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
SOURCE = REPOSITORY / "src" / "histoproof"
# Heavy imports that `--help` and a config check must not pay for.
LIGHT = {"errors", "__init__", "files", "yamlfile", "signals", "progress", "cli", "__main__"}
HEAVY = {"torch", "numpy", "h5py", "matplotlib", "pydantic", "rich"}


def test_every_module_has_a_place_in_the_table() -> None:
    assert set().union(*LAYERS) == {_top(path) for path in SOURCE.rglob("*.py")}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    mine = _top(path)
    level = next(n for n, names in enumerate(LAYERS) if mine in names)
    allowed = {mine}.union(*LAYERS[:level])
    assert _imported(path) <= allowed, f"{mine} may import {sorted(allowed)}"


@pytest.mark.parametrize("name", sorted(LIGHT))
def test_light_modules_import_nothing_heavy_at_the_top(name: str) -> None:
    tree = ast.parse((SOURCE / f"{name}.py").read_text())
    found = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not found & HEAVY


def test_the_table_would_catch_an_arrow_up(tmp_path: Path) -> None:
    upward = tmp_path / "errors.py"
    upward.write_text("def f() -> None:\n    from .train import train\n")
    assert _imported(upward, package=()) == {"train"}


def _top(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def _imported(path: Path, package: tuple[str, ...] | None = None) -> set[str]:
    """Names of the top-level modules of histoproof that a file imports, anywhere in it."""
    if package is None:
        package = path.relative_to(SOURCE).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {(*base, *name.split("."))[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("histoproof"):
            raise AssertionError(f"{path}: imports within the package are relative")
    return found - {"__version__"}
