"""Each command is one public function of the same name; what a module offers stands in its __all__."""

import ast
import importlib
import inspect
from typing import Any

import pytest
import typer.main

from histoproof.cli import app

from .conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "histoproof"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py"}
)
ROOT: Any = typer.main.get_command(app)
GROUPS = [name for name, command in ROOT.commands.items() if hasattr(command, "commands")]
COMMANDS = [("", name) for name in ROOT.commands if name not in GROUPS] + [
    (f"{group}.", name) for group in GROUPS for name in ROOT.commands[group].commands
]


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_each_command_is_a_function_of_the_same_name(group: str, name: str) -> None:
    module = "bench" if group == "bench." else f"{group}{name}"  # the benches are functions of one package
    function = getattr(importlib.import_module(f"histoproof.{module}"), name)
    assert inspect.isfunction(function)
    assert function.__doc__


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_each_command_has_json_and_help_for_every_option(group: str, name: str) -> None:
    command = ROOT.commands[group.rstrip(".")].commands[name] if group else ROOT.commands[name]
    assert command.help
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
    assert all(parameter.help for parameter in command.params if parameter.name != "help")


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_is_there_and_public_functions_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    for public in module.__all__:
        found = getattr(module, public)
        if inspect.isfunction(found) or inspect.isclass(found):
            assert found.__doc__, f"{name}.{public} has no docstring"
    assert not [n for n in module.__all__ if n.startswith("_")]


def test_no_pickle_no_global_randomness_no_assertion_for_users() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for forbidden in (
            "pickle.load",
            "torch.load(",
            "yaml.unsafe_load",
            "np.random.seed",
            "np.random.rand(",
            "random.seed(",
        ):
            assert forbidden not in text, f"{path}: {forbidden}"
        assert "except:" not in text, path
        ast.parse(text)
