"""A champion: chosen without fooling ourselves, frozen so that a changed byte shows, and alone in opening the test split."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoproof import ledger, metrics
from histoproof.calibration import apply_temperature
from histoproof.champion import champion
from histoproof.champion.baselines import colour_features, is_mission_mlp
from histoproof.champion.candidates import find, rank
from histoproof.champion.opponents import Opponents, opponents
from histoproof.champion.retrain import new_seeds
from histoproof.champion.valid import open_valid
from histoproof.champion.words import champion_words
from histoproof.config import load, shipped_config
from histoproof.data.pack import pack
from histoproof.data.split import split
from histoproof.data.store import Split, content_sha256, open_store
from histoproof.data.synth import synth
from histoproof.errors import ConfigError, DataError, OutputError, RunError, SealedError
from histoproof.evaluate import evaluate, load_predictions
from histoproof.files import read_json, sha256_file, write_json
from histoproof.frozen import digest_of, open_champion
from histoproof.predict import predict
from histoproof.rules import ExpectedCost, FBeta, RecallAtLeast, parse_rule
from histoproof.threshold import choose_threshold
from histoproof.train import train

CONFIG = """
seed: 42
data: {store: STORE}
model: {name: mlp, hidden: [8]}
optim: {lr: 0.01}
train: {epochs: 2, batch_size: 64}
evaluate: {bootstrap: 100, batch_size: 32}
"""
Content = dict[str, Any]


def make_study(folder: Path, store: Path) -> Path:
    """Three runs of two configs: one of them with two seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "c.yaml"
    config.write_text(CONFIG.replace("STORE", json.dumps(str(store))))
    for name, sets in (("a", []), ("a43", ["seed=43"]), ("b", ["optim.lr=0.0001"])):
        train(config, sets, out=folder / "study" / name)
    return folder / "study"


@pytest.fixture(scope="module")
def own(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of this module's own, with a ledger of its own."""
    return Path(shutil.copytree(store, tmp_path_factory.mktemp("own") / "store"))


@pytest.fixture(scope="module")
def study(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"), own)


@pytest.fixture(scope="module")
def frozen(study: Path) -> Content:
    return champion(study)


@pytest.fixture
def copied(study: Path, frozen: Content, own: Path, tmp_path: Path) -> Path:
    """A copy of the champion alone, beside a copy of its store without a ledger."""
    shutil.copytree(own, tmp_path / "store")
    return Path(shutil.copytree(study / "champion", tmp_path / "champion"))


# Choosing


def test_the_best_of_the_study_by_a_corrected_score_at_its_own_threshold_wins(study: Path, frozen: Content) -> None:
    chosen = frozen["selection"]
    assert (chosen["candidates"], chosen["runs"], frozen["primary"]) == (2, 3, "f2")
    assert [row["primary"] for row in chosen["ranking"]] == sorted(
        (r["primary"] for r in chosen["ranking"]), reverse=True
    )
    assert chosen["winner"] == chosen["ranking"][0]
    for row in chosen["ranking"]:
        assert row["primary"] == pytest.approx(np.mean([run["primary"] for run in row["runs"]]))
        for run in row["runs"]:
            found = load_predictions(Path(run["run"]) / "predictions" / "valid.npz")
            groups = open_store(Path(frozen["store"])).meta("valid", "wsi")
            picked = choose_threshold(found.label, found.probability, groups=groups, replicates=200)
            assert (run["threshold"], run["primary"]) == (picked.threshold.value, picked.corrected["f2"])
            assert run["primary"] != metrics.score(found.label, found.probability)["f2"]


def test_it_is_retrained_with_seeds_the_search_never_saw_and_the_median_is_frozen(study: Path, frozen: Content) -> None:
    used = {run["seed"] for run in frozen["selection"]["winner"]["runs"]}
    rows = frozen["seeds"]["rows"]
    assert len(rows) == 3
    assert not used & {row["seed"] for row in rows}
    ordered = sorted(row["primary"] for row in rows)
    assert next(row["primary"] for row in rows if row["seed"] == frozen["seed"]) == ordered[1]
    spread = frozen["seeds"]["scores"]["f2"]
    assert (spread["n"], spread["mean"]) == (3, pytest.approx(np.mean(ordered)))
    assert spread["low"] < spread["mean"] < spread["high"]
    assert (study / "champion" / frozen["run"] / "summary.json").is_file()


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(1, 10))
def test_new_seeds_are_new_and_the_nearest_from_the_first_up(used: set[int], count: int) -> None:
    found = new_seeds(sorted(used), count)
    assert len(found) == count
    assert not used & set(found)
    assert set(range(min(used), found[-1] + 1)) == set(found) | {s for s in used if s <= found[-1]}


def test_runs_of_champions_are_no_candidates_and_another_out_gives_the_same(
    study: Path, frozen: Content, tmp_path: Path
) -> None:
    assert len(find(study, tmp_path / "elsewhere").rows) == 3
    again = champion(study, out=tmp_path / "second")
    momentary = {"frozen", "environment", "champion_sha256", "warnings"}
    assert {k: v for k, v in again.items() if k not in momentary} == {
        k: v for k, v in frozen.items() if k not in momentary
    }


def test_the_store_may_lie_elsewhere_and_must_be_the_same(study: Path, own: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "s", ignore=shutil.ignore_patterns("champion", "b", "a43")))
    config = copy / "a" / "config.yaml"
    config.write_text(
        re.sub(r"store: .*", "store: elsewhere", config.read_text(), count=1).replace("tta: none", "tta: d4")
    )
    with pytest.raises(DataError, match="no such store: .*elsewhere"):
        champion(copy)
    synth(tmp_path / "d", train=64, valid=96, test=8, seed=1)
    pack(tmp_path / "d", tmp_path / "other")
    with pytest.raises(DataError, match="that the runs were trained on"):
        champion(copy, store=tmp_path / "other")
    moved = Path(shutil.copytree(own, tmp_path / "moved store"))
    found = champion(copy, store=moved)
    assert (found["store"], found["store_sha256"]) == (str(moved), open_store(own).content_sha256)
    again = evaluate(copy / "champion")
    assert (again["tta"], again["metrics"]) == ("d4", found["choice"]["chosen"])
    assert found["tta"] == "d4"


def test_with_one_group_only_the_score_is_not_corrected_and_says_so(study: Path, own: Path, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("site\n" + "one\n" * 96)
    copy = Path(shutil.copytree(study, tmp_path / "s", ignore=shutil.ignore_patterns("champion")))
    for name in ("a", "a43", "b"):
        config = copy / name / "config.yaml"
        text = config.read_text().replace("column: wsi", "column: site")
        config.write_text(text.replace("csv: null", f"csv: {tmp_path / 'g.csv'}"))
    field = find(copy, copy / "champion")
    valid = open_valid(load(copy / "a" / "config.yaml"))
    ranking, _ = rank(field, valid, "f2", FBeta(), replicates=100)
    assert all(score.primary == score.seen and not score.corrected for one in ranking for score in one.scores)
    assert ranking[0].primary is not None


def test_unfinished_and_damaged_runs_are_counted_and_left_out(study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "s", ignore=shutil.ignore_patterns("champion")))
    (copy / "a" / "summary.json").unlink()
    (copy / "b" / "summary.json").write_text("{}")
    found = find(copy, copy / "champion")
    assert (list(found.rows), found.unfinished) == ([str(copy / "a43")], 1)
    assert [out["run"] for out in found.left_out] == [str(copy / "b")]
    for name in ("a43", "b"):
        (copy / name / "summary.json").unlink()
    with pytest.raises(RunError, match="no finished run"):
        champion(copy)


def test_runs_of_other_patches_are_refused(study: Path, official: Path, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "s", ignore=shutil.ignore_patterns("champion")))
    part = Path(shutil.copytree(store, tmp_path / "other"))
    split(part, fractions={"train": 0.7, "valid": 0.3}, name="p")
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.replace("STORE", json.dumps(str(part))))
    train(config, ["data.partition=p"], out=copy / "z")
    with pytest.raises(DataError, match="differ in their partition"):
        champion(copy)
    made = champion(copy / "z")  # alone it is a study of one
    assert made["partition"]["name"] == "p"
    assert made["skipped"]["runner-up"] == "there was one candidate only"
    assert evaluate(copy / "z" / "champion")["partition"]["name"] == "p"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"seeds": 2}, ConfigError, "--seeds 2"),
        ({"by": "f3"}, ConfigError, "--by f3"),
        ({"rule": "best"}, ConfigError, "is no rule"),
        ({"rule": "recall>=1.5"}, ConfigError, "recall is 1.5"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_any_work(
    study: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        champion(study, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_runs_that_name_different_scores_need_a_word(study: Path, own: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "s", ignore=shutil.ignore_patterns("champion")))
    text = (copy / "b" / "config.yaml").read_text()
    (copy / "b" / "config.yaml").write_text(text.replace("primary: f2", "primary: auc"))
    with pytest.raises(ConfigError, match="auc and f2 as evaluate.primary"):
        champion(copy)


def test_one_class_in_valid_is_refused(own: Path, tmp_path: Path, write_split: Callable[..., None]) -> None:
    opened = open_store(own)
    train_split = opened.split("train")
    write_split(tmp_path / "d", "train", train_split.images[:64], train_split.labels[:64])  # type: ignore[index]
    write_split(tmp_path / "d", "valid", opened.split("valid").images[:8], np.zeros(8))
    pack(tmp_path / "d", tmp_path / "s")
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.replace("STORE", json.dumps(str(tmp_path / "s"))))
    train(config, out=tmp_path / "run")
    with pytest.raises(DataError, match="every valid patch .* has label 0"):
        champion(tmp_path / "run")
    assert not (tmp_path / "run" / "champion").exists()


def test_predictions_made_otherwise_or_lost_are_made_again(study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "s", ignore=shutil.ignore_patterns("champion")))
    evaluate(copy / "a", tta=True)
    (copy / "b" / "predictions" / "valid.npz").unlink()
    shutil.rmtree(copy / "a43" / "predictions")
    shutil.rmtree(copy / "a43" / "checkpoints")
    found = champion(copy)
    rows = {Path(run["run"]).name: run for row in found["selection"]["ranking"] for run in row["runs"]}
    before = read_json(study / "champion" / "champion.json")["selection"]["ranking"]
    for row in before:
        for run in row["runs"]:
            name = Path(run["run"]).name
            if name != "a43":
                assert rows[name]["primary"] == run["primary"]
    (lost,) = found["selection"]["left_out"]
    assert lost["run"].endswith("a43")
    assert "best.safetensors" in lost["why"]


# Deciding


def test_threshold_and_temperature_are_those_of_the_frozen_runs_predictions(study: Path, frozen: Content) -> None:
    raw = load_predictions(study / "champion" / frozen["run"] / "predictions" / "valid.npz")
    kept = load_predictions(study / "champion" / "predictions" / "valid.npz")
    assert np.array_equal(kept.logit, raw.logit / frozen["temperature"])
    groups = open_store(Path(frozen["store"])).meta("valid", "wsi")
    again = choose_threshold(kept.label, kept.probability, groups=groups, replicates=100, seed=frozen["seed"])
    assert frozen["threshold"] == again.threshold.value
    assert frozen["choice"]["corrected"]["f2"] == again.corrected["f2"]
    calibration = frozen["calibration"]
    assert calibration["after"]["nll"]["value"] <= calibration["before"]["nll"]["value"]
    assert calibration["after"]["auc"]["value"] == calibration["before"]["auc"]["value"]
    assert set(calibration["cross_fitted"]) == {"ece", "nll", "brier"}


def test_what_it_was_not_shown_to_beat_is_said_in_red(frozen: Content) -> None:
    for name, rows in frozen["comparison"].items():
        row = next(row for row in rows if row["score"] == "f2")
        better = row["difference"]["value"] > 0 and row["p_holm"] is not None and row["p_holm"] < 0.05
        told = any(warning.startswith(f"not shown to be better than {name} in f2") for warning in frozen["warnings"])
        assert told == (not better and name != "runner-up")
    assert any(warning.startswith("not shown to be better than mean-colour") for warning in frozen["warnings"])


def test_it_is_compared_with_every_baseline_on_the_same_patches_each_at_its_own_threshold(
    study: Path, frozen: Content
) -> None:
    names = ["runner-up", "majority", "constant", "mean-colour", "mlp"]
    assert list(frozen["comparison"]) == list(frozen["baselines"]) == names
    assert frozen["skipped"] == {}
    champions = load_predictions(study / "champion" / "predictions" / "valid.npz")
    for name, rows in frozen["comparison"].items():
        assert [row["score"] for row in rows] == ["auc", "accuracy", "f2"]
        said = frozen["baselines"][name]
        path = study / "champion" / said["predictions"]
        assert sha256_file(path) == said["predictions_sha256"]
        other = load_predictions(path)
        assert np.array_equal(other.index, champions.index)
        scored = metrics.score(other.label, other.probability, threshold=said["threshold"])
        for row in rows:
            assert row["b"] == pytest.approx(scored[row["score"]])
            assert row["p_value"] is None or row["p_value"] <= row["p_holm"] <= 1
            assert row["p_value"] is not None or row["difference"]["why"]
    majority = load_predictions(study / "champion" / frozen["baselines"]["majority"]["predictions"])
    labels = open_store(Path(frozen["store"])).split("train").labels
    assert majority.probability == pytest.approx(np.full(96, np.asarray(labels).mean()))


def test_the_missions_mlp_is_not_compared_with_itself(study: Path, own: Path, frozen: Content, tmp_path: Path) -> None:
    sets = [f"data.store={json.dumps(str(own))}", "evaluate.bootstrap=100", "seed=7"]
    mission = load(shipped_config("baseline"), sets)
    tuned = load(shipped_config("baseline"), [*sets, "optim.lr=0.01"])
    valid = open_valid(mission)
    assert is_mission_mlp(mission, valid)
    assert not is_mission_mlp(tuned, valid)
    found = opponents(tmp_path, [], mission, valid, 7, None)
    assert isinstance(found, Opponents)
    assert found.skipped["mlp"] == "the champion is the mission's MLP itself"
    assert [model.name for model in found.models] == ["majority", "constant", "mean-colour"]


def test_colour_features_are_means_and_deviations_of_patch_and_centre(own: Path) -> None:
    split = open_store(own).split("valid")
    rows = np.array([5, 0, 95], dtype=np.int64)
    found = colour_features(split, rows)
    for row, features in zip(rows, found, strict=True):
        image = np.asarray(split.images[row], dtype=np.float64)
        parts = [image, image[32:64, 32:64]]
        expected = [f for part in parts for f in (*part.mean(axis=(0, 1)), *part.std(axis=(0, 1)))]
        assert features == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("f2", FBeta(2.0)),
        ("F0.5", FBeta(0.5)),
        ("recall>=0.95", RecallAtLeast(0.95)),
        ("recall >= .9, precision", RecallAtLeast(0.9, "precision")),
        ("cost=5:1", ExpectedCost(5.0, 1.0)),
        ("cost=5:1@0.1", ExpectedCost(5.0, 1.0, 0.1)),
    ],
)
def test_rules_are_read(text: str, rule: object) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text", ["", "f", "f0", "recall", "recall>=", "recall>=0", "cost=5", "cost=0:0", "cost=1:1@2", "0.5"]
)
def test_what_is_no_rule_is_answered_with_the_rules_there_are(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_rule(text)
    assert error.value.valid


# Frozen


def test_champion_json_vouches_for_itself_and_for_everything_it_hangs_on(study: Path, frozen: Content) -> None:
    out = study / "champion"
    assert read_json(out / "champion.json") == frozen
    assert frozen["champion_sha256"] == digest_of(frozen)
    assert frozen["checkpoint_sha256"] == sha256_file(out / frozen["run"] / "checkpoints" / "best.safetensors")
    assert frozen["predictions_sha256"] == sha256_file(out / "predictions" / "valid.npz")
    assert frozen["store_sha256"] == open_store(Path(frozen["store"])).content_sha256
    for name in ("precision-recall", "reliability"):
        assert (out / "figures" / f"{name}.svg").read_text().startswith("<svg")
        assert (out / "figures" / f"{name}.png").read_bytes()[1:4] == b"PNG"


def test_a_frozen_champion_is_never_overwritten(study: Path, frozen: Content, copied: Path) -> None:
    before = (study / "champion" / "champion.json").read_bytes()
    with pytest.raises(OutputError, match="never overwritten"):
        champion(study)
    assert (study / "champion" / "champion.json").read_bytes() == before
    evaluate(copied, split="test", store=copied.parent / "store")
    (copied / "champion.json").unlink()
    with pytest.raises(OutputError, match="has opened the test split"):
        champion(study, out=copied)


def test_evaluated_again_it_gives_the_frozen_numbers(study: Path, frozen: Content) -> None:
    result = evaluate(study / "champion")
    assert result["warnings"] == []
    assert (result["threshold"], result["temperature"]) == (frozen["threshold"], frozen["temperature"])
    assert result["champion_sha256"] == frozen["champion_sha256"]
    assert result["metrics"] == frozen["choice"]["chosen"]
    assert read_json(study / "champion" / "evaluations" / "valid.json")["metrics"] == result["metrics"]
    with pytest.raises(ConfigError, match="frozen with tta: none"):
        evaluate(study / "champion", tta=True)


def test_predict_gives_calibrated_probabilities_and_calls_at_the_frozen_threshold(
    study: Path, frozen: Content, official: Path
) -> None:
    x = official / "camelyonpatch_level_2_split_valid_x.h5"
    found = predict(study / "champion", [x])
    kept = load_predictions(study / "champion" / "predictions" / "valid.npz")
    by_row = {row["index"]: row for row in found}
    for index, p in zip(kept.index.tolist(), kept.probability.tolist(), strict=True):
        assert by_row[index]["tumor_probability"] == p
        assert by_row[index]["label"] == int(p >= frozen["threshold"])
    plain = predict(study / "champion" / frozen["run"], [x])
    assert [row["tumor_probability"] for row in found] == pytest.approx(
        apply_temperature([row["tumor_probability"] for row in plain], frozen["temperature"])
    )
    assert {row["label"] for row in predict(study / "champion", [x], threshold=0.0)} == {1}
    with pytest.raises(ConfigError, match="was frozen with --no-tta"):
        predict(study / "champion", [x], tta=True)


@pytest.mark.parametrize("what", ["threshold", "whitespace", "digest", "newline", "json", "version"])
def test_a_changed_byte_in_champion_json_is_refused(copied: Path, what: str, official: Path) -> None:
    x = official / "camelyonpatch_level_2_split_valid_x.h5"
    path = copied / "champion.json"
    text = path.read_text()
    changed = {
        "threshold": re.sub(r'("threshold": 0\.\d\d)(\d)', lambda m: m[1] + str((int(m[2]) + 1) % 10), text, count=1),
        "whitespace": text.replace(": ", ":", 1),
        "digest": text.replace('"champion_sha256": "', '"champion_sha256": "0', 1),
        "newline": text + "\n",
        "json": text[:-3],
        "version": text.replace('"version": 1', '"version": 2', 1),
    }[what]
    assert changed != text
    path.write_text(changed)
    for use in (lambda: evaluate(copied), lambda: predict(copied, [x])):
        with pytest.raises(RunError, match="champion.json"):
            use()
    with pytest.raises(RunError, match="champion.json"):
        evaluate(copied, split="test", store=copied.parent / "store")
    assert ledger.openings(copied.parent / "store") == []


@pytest.mark.parametrize("at", [20, 2000, -5])
def test_a_changed_byte_in_the_weights_is_refused(copied: Path, at: int) -> None:
    path = copied / open_champion(copied).content["run"] / "checkpoints" / "best.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="was changed after the champion was frozen"):
        evaluate(copied, split="test", store=copied.parent / "store")
    path.unlink()
    with pytest.raises(RunError, match="weights are missing"):
        open_champion(copied)
    assert ledger.openings(copied.parent / "store") == []


def test_a_changed_config_or_changed_predictions_are_refused(copied: Path) -> None:
    config = copied / open_champion(copied).content["run"] / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("momentum: 0.9", "momentum: 0.8", 1))
    with pytest.raises(RunError, match=r"config\.yaml was changed"):
        open_champion(copied)
    config.write_text(re.sub(r"store: .*", "store: elsewhere", text, count=1))
    open_champion(copied)  # where the store lies may change
    predictions = copied / "predictions" / "valid.npz"
    predictions.write_bytes(predictions.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"valid\.npz was changed"):
        open_champion(copied)


def test_another_store_is_refused_and_nothing_is_opened(copied: Path, tmp_path: Path, official: Path) -> None:
    synth(tmp_path / "d", train=64, valid=32, test=32, seed=1)
    pack(tmp_path / "d", tmp_path / "other")
    for name in ("valid", "test"):
        with pytest.raises(DataError, match="is not the store"):
            evaluate(copied, split=name, store=tmp_path / "other")
    assert ledger.openings(tmp_path / "other") == []


# The sealed test


def test_only_a_frozen_champion_opens_the_test_split_and_the_ledger_says_so(
    study: Path, frozen: Content, copied: Path
) -> None:
    store = copied.parent / "store"
    for run in (study / "a", copied / frozen["run"], copied / "baselines" / "mlp" / "seed44"):
        with pytest.raises(SealedError, match="sealed") as error:
            evaluate(run, split="test", store=store)
        assert "histoproof champion" in str(error.value)
        assert "--open-test" in str(error.value)
    assert ledger.openings(store) == []
    first = evaluate(copied, split="test", store=store)
    (line,) = ledger.openings(store)
    assert (line["reason"], line["champion_sha256"]) == ("frozen champion", frozen["champion_sha256"])
    assert first["ledger"] == {"path": str(ledger.path_of(store)), "line": 1, "chain": line["chain"]}
    assert (first["threshold"], first["warnings"]) == (frozen["threshold"], [])
    found = load_predictions(copied / "predictions" / "test.npz")
    scored = metrics.score(found.label, found.probability, threshold=frozen["threshold"])
    assert {name: score["value"] for name, score in first["metrics"].items()} == scored
    again = evaluate(copied, split="test", store=store)
    assert {**again, "ledger": None} == {**first, "ledger": None}
    assert [line["number"] for line in ledger.openings(store)] == [1, 2]
    found_by = ledger.ledger(store, [copied])
    assert (found_by["count"], found_by["ok"], found_by["witnesses"]) == (2, True, 2)


def test_the_second_champions_look_is_said_to_be_no_longer_blind(study: Path, copied: Path, tmp_path: Path) -> None:
    store = copied.parent / "store"
    evaluate(copied, split="test", store=store)
    other = Path(shutil.copytree(copied, tmp_path / "other"))
    shutil.rmtree(other / "evaluations")
    content = read_json(other / "champion.json") | {"threshold": 0.9}
    write_json(other / "champion.json", content | {"champion_sha256": digest_of(content)})
    (warning,) = evaluate(other, split="test", store=store)["warnings"]
    assert "no longer a blind look" in warning
    assert "opened once before" in warning
    assert "no longer a blind look" in evaluate(copied, split="test", store=store)["warnings"][0]


def test_a_champion_frozen_after_test_was_opened_says_so(study: Path, own: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(own, tmp_path / "store"))
    copy = Path(shutil.copytree(study, tmp_path / "s", ignore=shutil.ignore_patterns("champion", "b")))
    for name in ("a", "a43"):
        config = copy / name / "config.yaml"
        config.write_text(re.sub(r"store: .*", f"store: {json.dumps(str(store))}", config.read_text(), count=1))
    evaluate(copy / "a", split="test", store=store, open_test="curious")
    found = champion(copy)
    assert any("opened once before this champion was frozen" in warning for warning in found["warnings"])


def test_without_labels_test_is_not_opened(copied: Path, frozen: Content, write_split: Callable[..., None]) -> None:
    store = copied.parent / "store"
    (store / "test" / "labels.npy").unlink()
    manifest = read_json(store / "manifest.json")
    manifest["splits"]["test"]["labels"] = None
    manifest["content_sha256"] = content_sha256(manifest["splits"], (store / "quarantine.csv").read_text())
    write_json(store / "manifest.json", manifest)
    with pytest.raises(DataError, match="has no labels"):
        evaluate(copied, split="test", store=store)
    assert ledger.openings(store) == []


def test_the_line_stands_in_the_ledger_before_a_label_is_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = copied.parent / "store"
    rows, seen = Split.rows, []

    def looked(self: Split, quarantine: Any) -> Any:
        seen.append((self.name, len(ledger.openings(store))))
        return rows(self, quarantine)

    monkeypatch.setattr(Split, "rows", looked)
    evaluate(copied, split="test", store=store)
    assert seen == [("test", 1)]


def test_a_ledger_that_lost_its_lines_does_not_open_again_for_who_knows_them(copied: Path) -> None:
    store = copied.parent / "store"
    evaluate(copied, split="test", store=store)
    ledger.path_of(store).unlink()
    ledger.witness_of(store).unlink()
    assert ledger.verify(store) == []  # nobody is left there who knows
    with pytest.raises(RunError, match=r"ledger\.jsonl:1: line 1 is missing: .*evaluations/test\.json knows of 1"):
        evaluate(copied, split="test", store=store)


# Stopped, and gone on with


def test_a_stopped_champion_goes_on_and_ends_in_the_same_bits(study: Path, frozen: Content, tmp_path: Path) -> None:
    calls = 0

    def terminate(done: int, total: int, words: str) -> None:
        nonlocal calls
        calls += words != "candidates"
        if calls == 14:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = champion(study, out=tmp_path / "out", progress=terminate)
    assert (stopped["status"], stopped["signal"]) == ("stopped", "SIGTERM")
    assert not (tmp_path / "out" / "champion.json").exists()
    assert list((tmp_path / "out" / "seeds").glob("*/summary.json"))  # one is finished already
    shutil.move(tmp_path / "out", tmp_path / "out2")
    shutil.rmtree(tmp_path / "out2" / "seeds" / "seed46", ignore_errors=True)
    for folder in ("checkpoints", "figures"):  # a process killed before it wrote its config
        (tmp_path / "out2" / "seeds" / "seed46" / folder).mkdir(parents=True)
    done = champion(study, out=tmp_path / "out2")
    for key in ("weights_sha256", "trail_sha256", "temperature", "threshold", "seeds", "comparison"):
        assert done[key] == frozen[key]


def test_what_was_begun_with_another_winner_is_not_gone_on_with(study: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out" / "selection.json", {"config_sha256": "other", "winner": {"config": {"optim.lr": 1}}})
    write_json(tmp_path / "by" / "selection.json", {"by": "auc", "rule": "the highest F2"})
    with pytest.raises(OutputError, match="begun with another by: auc there, f2 here"):
        champion(study, out=tmp_path / "by")
    with pytest.raises(OutputError, match="begun with another winner"):
        champion(study, out=tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        champion(study, out=tmp_path / "full")
    with pytest.raises(OutputError, match="is a file"):
        champion(study, out=tmp_path / "full" / "thesis.txt")


def test_a_folder_that_cannot_be_written_is_said_so(study: Path, mounted: Callable[[str], Path]) -> None:
    with pytest.raises(OutputError, match="[Rr]ead-only"):
        champion(study, out=mounted("ro") / "out")


# The commands


def histoproof(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "histoproof", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.slow
def test_the_commands_print_what_was_decided_and_exit_as_promised(study: Path, own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my work"
    shutil.copytree(study, folder / "s", ignore=shutil.ignore_patterns("champion"))
    made = histoproof("champion", "s", "--by", "auc", "--rule", "recall>=0.9", "--json", cwd=folder)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found == read_json(folder / "s" / "champion" / "champion.json")
    assert (found["primary"], found["rule"]) == ("auc", "recall at least 0.9, then the highest specificity")
    assert found["choice"]["chosen"]["recall"]["value"] >= 0.9
    assert list(found["seeds"]["scores"]) == ["auc"]
    assert [row["score"] for row in found["comparison"]["mean-colour"]] == ["auc", "accuracy", "f2"]
    sealed = histoproof("evaluate", "s/a", "--split", "test", cwd=folder)
    assert (sealed.returncode, sealed.stdout) == (2, "")
    assert "histoproof champion STUDY" in sealed.stderr
    store = Path(shutil.copytree(own, folder / "store"))
    opened = histoproof("evaluate", "s/champion", "--split", "test", "--store", "store", cwd=folder)
    assert opened.returncode == 0, opened.stderr
    assert "(frozen), temperature" in opened.stdout
    told = histoproof("ledger", "store", "s", cwd=folder)
    assert told.returncode == 0
    assert "opened once" in told.stdout
    path = ledger.path_of(store)
    path.write_text(path.read_text().replace("frozen champion", "frozen Champion"))
    told = histoproof("ledger", "store", "--json", cwd=folder)
    assert told.returncode == 1
    assert json.loads(told.stdout)["problems"][0]["line"] == 1
    assert histoproof("ledger", "absent", cwd=folder).returncode == 2


def test_the_words_hold_champion_threshold_calibration_and_comparison(study: Path, frozen: Content) -> None:
    text = "\n".join(champion_words(frozen, study / "champion"))
    assert "best of 2 candidates (3 finished" in text
    assert re.search(r"threshold: 0\.\d{4} \(0\.\d{4} to [01]\.\d{4}\), by the rule: the highest F2", text)
    for name in ("ece", "nll", "brier"):
        assert re.search(rf"  {name} +0\.\d+ \(.*\) -> 0\.\d+ \(.*\); cross-fitted 0\.\d+", text)
    for name in frozen["comparison"]:
        assert f"  {name}: " in text
    assert text.count("Holm") >= 10
    assert "the median" in text
    assert "the mean is the honest f2" in text


@pytest.mark.real
@pytest.mark.slow
def test_a_champion_of_the_real_patches_beats_one_answer_for_all(
    real_store: Path, real_data: Path, tmp_path: Path
) -> None:
    groups = {"column": "stain_cluster_k40", "csv": str(real_data / "pcam-real" / "{split}_provenance.csv")}
    small = ["model.widths=[16, 32]", "train.epochs=2"]
    sets = [f"data.store={json.dumps(str(real_store))}", *small, f"evaluate.groups={json.dumps(groups)}"]
    for lr in (0.001, 0.002):
        train(shipped_config("champion"), [*sets, f"optim.lr={lr}"], out=tmp_path / "study" / str(lr))
    found = champion(tmp_path / "study")
    assert found["groups"]["column"] == "stain_cluster_k40"
    assert found["comparison"]["majority"][0]["p_holm"] < 0.001
    assert 0 < found["choice"]["threshold"]["low"] <= found["threshold"] <= found["choice"]["threshold"]["high"] < 1
    result = evaluate(tmp_path / "study" / "champion", split="test")
    assert result["metrics"]["auc"]["low"] > 0.75
    ledger.path_of(real_store).unlink()
    ledger.witness_of(real_store).unlink()
