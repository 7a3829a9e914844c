"""A space means what it says, or its line is named before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from histoproof.errors import ConfigError
from histoproof.search.check import check_space_on
from histoproof.search.cma import _from_unit, _to_unit
from histoproof.search.space import (
    active,
    corners,
    distributions,
    every_point,
    order,
    overrides,
    size,
    to_optuna,
    values,
)
from histoproof.search.spec import Dimension, SpaceSpec, read_space
from histoproof.specfile import parse_spec
from histoproof.yamlfile import parse_value

from .conftest import REPOSITORY

SHIPPED = {"mlp": "baseline", "cnn": "champion"}
CONFIG = "data: {store: STORE}\nmodel: {name: mlp, hidden: [8]}\ntrain: {batch_size: 32}\n"


def of(**space: Any) -> dict[str, Dimension]:
    return parse_spec({"space": space}, SpaceSpec).space


def refused(tmp_path: Path, text: str, store: Path | str = "store") -> str:
    config, space = tmp_path / "c.yaml", tmp_path / "space.yaml"
    config.write_text(CONFIG.replace("STORE", str(store)))
    space.write_text(text)
    with pytest.raises(ConfigError) as error:
        spec, lines = read_space(space)
        check_space_on(config, [], space, spec, lines)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "space:\n  optim.lr: {low: 0.1, high: 20}\n",
            "space.yaml:2: optim.lr = 20.0 is not valid (valid: a number > 0",
        ),
        (
            "space:\n  optim.lrr: {low: 0.1, high: 1}\n",
            "space.yaml:2: there is no key optim.lrr; did you mean optim.lr?",
        ),
        ("space:\n  optim.name: {choices: [sgd, adam]}\n", "space.yaml:2: optim.name = 'adam' is not valid"),
        ("space:\n  model.hidden: {choices: [[64, 32], [0]]}\n", "space.yaml:2: model.hidden.0 = 0 is not valid"),
        ("space:\n  train.epochs: {low: 1, high: 3}\n", "space.yaml:2: train.epochs = 1.0 is not valid"),
        ("space:\n  train.epochs: {low: 1, high: 3}\n", "add `int: true`"),
        (
            "space:\n  optim.lr: {low: 1, high: 0.1}\n",
            "space.yaml:2: space.optim.lr: low = 1 is larger than high = 0.1",
        ),
        ("space:\n  optim.lr: {low: 0, high: 0.1, log: true}\n", "log needs low > 0"),
        ("space:\n  optim.lr: {low: 0.1}\n", "give low and high, or choices"),
        ("space:\n  optim.lr: {low: 0.1, high: 1, choices: [1]}\n", "choices go without low"),
        ("space:\n  optim.lr: {hihg: 0.1, low: 1}\n", "did you mean high?"),
        ("space:\n  model.dropout: {low: 1, high: 153, step: 21.714285714285715}\n", "more digits than can be added"),
        ("space:\n  optim.lr: {choices: []}\n", "space.yaml:2: space.optim.lr.choices = [] is not valid"),
        ("space:\n  optim.lr: {choices: [0.1, 0.1]}\n", "a choice is given twice"),
        ("space:\n  optim.lr: {low: 0.1, high: .inf}\n", "space.optim.lr.high = inf is not valid"),
        ("space:\n  seed: {low: 1, high: 9, int: true}\n", "space.seed cannot be searched"),
        ("space:\n  data.store: {choices: [a, b]}\n", "space.data.store cannot be searched"),
        ("space:\n  train.workers: {choices: [1, 2]}\n", "changes no result"),
        ("space: {}\n", "space = {} is not valid"),
        ("spaces: {}\n", "did you mean space?"),
        ("", "the key space is missing"),
        ("space:\n  model: {choices: [{name: mlp}]}\n  model.dropout: {low: 0, high: 0.5}\n", "which is a part of it"),
        (
            "space:\n  optim.momentum: {low: 0.1, high: 0.9, when: {optim.name: sgd}}\n",
            "when names optim.name, which has no choices in this space",
        ),
        (
            "space:\n  optim.name: {choices: [sgd]}\n  optim.momentum: {low: 0, high: 0.9, when: {optim.name: adam}}\n",
            "optim.name is never 'adam'",
        ),
        (
            "space:\n  optim.name: {choices: [sgd], when: {optim.nesterov: true}}\n"
            "  optim.nesterov: {choices: [true], when: {optim.name: sgd}}\n",
            "lead back to themselves",
        ),
        ("space:\n  optim.lr: {low: 0.1, high: 1}\nsampler: {name: cmaes}\n", "two ranges of numbers or more"),
        (
            "space:\n  optim.lr: {low: 0.1, high: 1}\nsampler: {name: grid}\n",
            "space.yaml:2: a grid needs choices, int or a step",
        ),
        ("space:\n  optim.lr: {low: 0.1, high: 1}\nsampler: {name: bayes}\n", "sampler.name = 'bayes' is not valid"),
        ("space:\n  optim.lr: {low: 0.1, high: 1}\nmetric: aucc\n", "metric = 'aucc' is not valid"),
        (
            "space:\n  optim.name: {choices: [sgd, adamw]}\n  optim.nesterov: {choices: [true, false]}\n",
            "nesterov = true needs name: sgd",
        ),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(tmp_path: Path, text: str, told: str) -> None:
    assert told in refused(tmp_path, text)


def test_a_batch_larger_than_the_train_split_is_named(tmp_path: Path, store: Path) -> None:
    message = refused(tmp_path, "space:\n  train.batch_size: {choices: [64, 512]}\n", store)
    assert "space.yaml:2: train.batch_size = 512 is larger than the train split's 256 usable patches" in message


def test_a_condition_holds_and_unheld_keys_do_not_vary() -> None:
    space = of(
        **{
            "optim.momentum": {"choices": [0.5, 0.9], "when": {"optim.name": "sgd"}},
            "optim.name": {"choices": ["sgd", "adamw"]},
            "optim.nesterov": {"choices": [True, False], "when": {"optim.momentum": [0.9]}},
        }
    )
    points = every_point(space)
    assert points is not None
    assert list(points) == [
        {"optim.name": "sgd", "optim.momentum": 0.5},
        {"optim.name": "sgd", "optim.momentum": 0.9, "optim.nesterov": True},
        {"optim.name": "sgd", "optim.momentum": 0.9, "optim.nesterov": False},
        {"optim.name": "adamw"},
    ]
    assert order(space) == ["optim.name", "optim.momentum", "optim.nesterov"]


def test_a_choice_may_be_a_list_and_a_condition_may_name_one() -> None:
    space = of(
        **{
            "model.hidden": {"choices": [[64, 32], [16]]},
            "model.dropout": {"choices": [0.1], "when": {"model.hidden": [64, 32]}},
        }
    )
    assert active(space["model.dropout"], {"model.hidden": [64, 32]})
    assert not active(space["model.dropout"], {"model.hidden": [16]})
    known = distributions(space)["model.hidden"]
    assert known.choices == ("[64,32]", "[16]")


NUMBERS = st.floats(1e-6, 1e6, allow_nan=False)


@st.composite
def dimensions(draw: st.DrawFn) -> Dimension:
    low, high = sorted(float(f"{draw(NUMBERS):.6g}") for _ in range(2))
    kind = draw(st.sampled_from(["linear", "log", "step", "int", "int log", "int step"]))
    content: dict[str, Any] = {"low": low, "high": high}
    if "int" in kind:
        content = {"low": float(int(low) + 1), "high": float(int(high) + 1), "int": True}
    if "log" in kind:
        content["log"] = True
    if "step" in kind:
        room = content["high"] - content["low"]
        content["step"] = (
            float(max(int(room / 7), 1))
            if "int" in kind
            else float(f"{max(room / draw(st.integers(1, 50)), 1e-6):.6g}")
        )
    try:
        return of(x=content)["x"]
    except (
        ConfigError
    ) as refused:  # low + n steps is not always a float: such a space is refused, and no case for these laws
        assume("more digits than can be added up" not in str(refused))
        raise


@given(dimensions())
def test_every_value_of_a_range_is_one_that_optuna_knows(dimension: Dimension) -> None:
    known = distributions({"x": dimension})["x"]
    found = values(dimension)
    for value in [known.low, known.high] if found is None else [found[0], found[-1], found[len(found) // 2]]:
        assert known._contains(known.to_internal_repr(value))


@given(dimensions(), st.floats(0, 1))
def test_cma_es_stays_in_the_range_and_finds_its_place_again(dimension: Dimension, unit: float) -> None:
    value = _from_unit(dimension, unit)
    known = distributions({"x": dimension})["x"]
    assert known._contains(known.to_internal_repr(value))
    assert _from_unit(dimension, _to_unit(dimension, value)) == pytest.approx(value, rel=1e-9)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_an_override_is_read_back_as_the_value_it_was(value: Any) -> None:
    (text,) = overrides({"k": value})
    assume(all(c.isprintable() for c in text))  # YAML has its own view of control characters
    assert parse_value(text.partition("=")[2]) == value


def test_many_dimensions_are_checked_two_by_two() -> None:
    space = of(**{f"x.k{n}": {"low": 0.0, "high": 1.0} for n in range(14)})
    found = list(corners(space))
    assert len(found) < 2000
    for a in range(14):
        for b in range(a):
            assert {(p[f"x.k{a}"], p[f"x.k{b}"]) for p in found} == {(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)}


@pytest.mark.parametrize(("name", "config"), SHIPPED.items())
def test_shipped_spaces_fit_their_configs_and_say_command_hardware_time_and_score(
    name: str, config: str, store: Path
) -> None:
    path = REPOSITORY / "configs" / "search" / f"{name}.yaml"
    spec, lines = read_space(path)
    check_space_on(REPOSITORY / "configs" / f"{config}.yaml", [f"data.store={store}"], path, spec, lines)
    header = path.read_text().split("\nspace:")[0]
    for word in ("histoproof search", "cores", "seconds", "AUC"):
        assert word in header
    assert size(spec, 10) is None
    assert all(to_optuna(d, choice) is not None for d in spec.space.values() for choice in d.choices or [])
