"""A config means what it says, or names file, line, key and what is valid."""

from pathlib import Path

import pytest

from histoproof.config import Config, load
from histoproof.errors import ConfigError

from .conftest import REPOSITORY

SHIPPED = sorted((REPOSITORY / "configs").glob("*.yaml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(written(tmp_path, text), overrides)
    return str(error.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_load_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load(path)
    assert load(written(tmp_path, config.as_yaml())) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_say_command_hardware_time_and_score(path: Path) -> None:
    header = path.read_text().split("\nseed:")[0]
    assert "histoproof " in header or "make " in header
    for word in ("cores", "seconds", "AUC"):
        assert word in header


def test_a_yaml_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    with pytest.raises(ConfigError, match="unfold to more than"):
        load(written(tmp_path, bomb))
    with pytest.raises(ConfigError, match="unfold to more than|not valid YAML"):
        load(written(tmp_path, "seed: &s [*s]\n"))


def test_the_baseline_is_the_missions_experiment() -> None:
    c = load(REPOSITORY / "configs" / "baseline.yaml").as_dict()
    assert c["seed"] == 42
    assert c["model"] == {"name": "mlp", "hidden": [64, 32], "dropout": 0.3}
    assert (c["optim"]["name"], c["optim"]["lr"], c["optim"]["momentum"], c["optim"]["max_grad_norm"]) == (
        "sgd",
        0.001,
        0.9,
        1.0,
    )
    assert {k: c["schedule"][k] for k in ("name", "factor", "patience", "min_lr")} == {
        "name": "plateau",
        "factor": 0.1,
        "patience": 2,
        "min_lr": 1e-6,
    }
    assert (c["train"]["epochs"], c["train"]["batch_size"], c["data"]["sampling"]) == (5, 64, "balanced")
    assert c["data"]["standardize"] == "none"


def test_an_unknown_key_names_line_nearest_key_and_the_valid_ones(tmp_path: Path) -> None:
    message = refused(tmp_path, "model: {name: mlp}\noptim:\n  lr: 0.1\n  momentumm: 0.9\n")
    assert "c.yaml:4: there is no key optim.momentumm; did you mean optim.momentum?" in message
    assert "weight_decay" in message


def test_a_bad_value_names_line_value_and_range(tmp_path: Path) -> None:
    message = refused(tmp_path, "model: {name: mlp}\noptim:\n  lr: -1\n")
    assert "c.yaml:3: optim.lr = -1 is not valid (valid: a number > 0 and <= 10)" in message


def test_a_bad_override_is_named_as_typed(tmp_path: Path) -> None:
    assert "--set optim.lr=fast: optim.lr = 'fast' is not valid" in refused(
        tmp_path, "model: {name: mlp}\n", "optim.lr=fast"
    )


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "model: {name: mpl}\ntrain: {epochs: 0, precision: fp64}\nseeed: 1\n")
    for part in (
        "model.name = 'mpl' is not valid (valid: mlp, cnn",
        "train.epochs = 0",
        "train.precision = 'fp64'",
        "seeed; did you mean seed",
    ):
        assert part in message


def test_a_model_must_be_named(tmp_path: Path) -> None:
    assert "the key model is missing" in refused(tmp_path, "seed: 1\n")
    assert "model.name" in refused(tmp_path, "model: {hidden: [3]}\n")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "c.yaml:2: seed is given twice; first on line 1" in refused(
        tmp_path, "seed: 1\nseed: 2\nmodel: {name: mlp}\n"
    )


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    assert "c.yaml:2: not valid YAML" in refused(tmp_path, "model: {name: mlp\nseed: 2\n")


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1E-3", 0.001), (".5", 0.5), ("1", 1.0)])
def test_numbers_are_read_as_numbers(tmp_path: Path, text: str, value: float) -> None:
    # YAML 1.1, which PyYAML follows by itself, reads 1e-3 as text.
    assert load(written(tmp_path, f"model: {{name: mlp}}\noptim: {{lr: {text}}}\n")).optim.lr == value


def test_no_is_not_false(tmp_path: Path) -> None:
    assert "augment.d4 = 'no' is not valid (valid: true or false)" in refused(
        tmp_path, "model: {name: mlp}\naugment: {d4: no}\n"
    )


def test_overrides_reach_every_depth_and_make_sections(tmp_path: Path) -> None:
    config = load(
        written(tmp_path, "model: {name: mlp}\n"),
        ["evaluate.groups.column=slide", "train.workers=2", "optim.max_grad_norm=null"],
    )
    assert config.evaluate.groups.column == "slide"
    assert config.train.workers == 2
    assert config.optim.max_grad_norm is None


@pytest.mark.parametrize("override", ["optim.lr", "=3", "optim..lr=1"])
def test_an_override_must_be_key_value(tmp_path: Path, override: str) -> None:
    assert "is not key=value" in refused(tmp_path, "model: {name: mlp}\n", override)


def test_an_empty_or_missing_or_listing_file_is_refused(tmp_path: Path) -> None:
    assert "the key model is missing" in refused(tmp_path, "")
    assert "holds no mapping" in refused(tmp_path, "- a\n")
    with pytest.raises(ConfigError, match="no such config"):
        load(tmp_path / "absent.yaml")


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    assert "not valid YAML" in refused(tmp_path, "model: !!python/object/apply:os.system ['true']\n")


def test_every_key_says_what_it_is() -> None:
    undocumented = [
        f"{section}.{name}"
        for section, schema in Config.model_json_schema()["$defs"].items()
        for name, field in schema["properties"].items()
        if name != "name" and "description" not in field and "$ref" not in field
    ]
    assert undocumented == []
