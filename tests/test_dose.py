"""Dose-response: the study goes on where it was killed, and says what its numbers say."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoproof import metrics
from histoproof.dose import dose
from histoproof.dose.numbers import auc_many, differences, verdict
from histoproof.dose.spec import read_dose_spec
from histoproof.errors import ConfigError, DataError, OutputError
from histoproof.evaluate import Predictions
from histoproof.files import read_json, write_json
from histoproof.journal import check, journal

CONFIG = """
model: {name: mlp, hidden: [8]}
optim: {lr: 0.01}
train: {epochs: 2, batch_size: 64, shards: 1}
evaluate: {bootstrap: 100}
"""
STUDY = """
seed: 1
models:
  small: {config: c.yaml, seeds: [1, 2], seconds: 1}
poisons:
  wild: {plant: {kind: out_of_range, of: positive, share: 0.5}, rates: [0.3]}
  flips: {plant: {kind: label_flip}, rates: [0.2]}
replicates: 100
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "s.yaml").write_text(STUDY)
    return tmp_path / "s.yaml"


def plain(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key in ("rows", "points", "differences")}


def test_a_study_has_a_row_a_cell_shares_equal_trainings_and_cleans_up(study: Path, official: Path) -> None:
    said: list[str] = []
    out = study.parent / "out"
    result = dose(study, official, out, say=said.append)
    assert said[0].startswith("12 trainings left of 12 (small: 12 of 1 s (by the spec)) on 6 poisoned copies")
    assert len(result["rows"]) == 12
    runs = {(row["poison"], row["seed"], row["quarantine"]): row["run"] for row in result["rows"]}
    for poison, same in (("clean", True), ("flips", True), ("wild", False)):
        assert (runs[poison, 1, "exclude"] == runs[poison, 1, "include"]) is same
    for row in result["rows"]:
        summary = read_json(out / row["run"] / "summary.json")
        assert row["auc"] == summary["best"]["intervals"]["auc"]["value"]
        assert row["n_planted"] == {"clean": 0, "wild": 77, "flips": 51}[row["poison"]]
        assert row["n_quarantined"] == (77 if row["poison"] == "wild" else 0)
    told = {row["poison"]: row for row in result["differences"]}
    assert (told["flips"]["verdict"], told["flips"]["value"]) == ("blind", 0.0)
    assert told["wild"]["low"] <= told["wild"]["value"] <= told["wild"]["high"]
    assert told["wild"]["words"].startswith("small, wild at 30.0%: ")
    assert result == read_json(out / "dose.json")
    assert {path.name for path in out.iterdir()} == {"cells", "dose.json", "groups", "runs", "study.json", ".lock"}
    assert not list(out.glob("runs/*/checkpoints/last*"))

    for lang, words in (("en", "nothing was quarantined"), ("nl", "er ging niets in quarantaine")):
        made = journal([out], study.parent / lang, lang=lang)  # type: ignore[arg-type]
        html, markdown = (Path(made[name]).read_text() for name in ("journal", "markdown"))
        for page in (html, markdown):
            assert words in page
            assert f"histoproof dose {study} --data {official} --out {out}" in page
        assert html.count("<svg") == html.count("</figure>") == 1
        assert (study.parent / lang / "assets" / "img" / "c2-d1-dose.png").is_file()
        assert check([out], study.parent / lang)["ok"]
    wild = told["wild"]
    assert (
        f"{wild['value']:.4f} | {wild['low']:.4f} – {wild['high']:.4f}"
        in (study.parent / "en" / "journal.md").read_text()
    )

    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")}
    again = dose(study, official, out, say=said.append)
    assert plain(again) == plain(result)
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")}
    assert said[-1].startswith("0 trainings left of 12")

    changed = {**again, "rows": [{**row, "auc": 0.99} for row in again["rows"]]}
    write_json(out / "dose.json", changed)
    assert "is not what its summary.json says" in journal([out], study.parent / "forged")["problems"][0]


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_in_the_same_numbers(study: Path, official: Path) -> None:
    folder = study.parent
    (folder / "c.yaml").write_text(CONFIG.replace("epochs: 2", "epochs: 5, checkpoint_every_steps: 3"))
    study.write_text(STUDY.replace("[1, 2]", "[1]").replace("  flips: {plant: {kind: label_flip}, rates: [0.2]}\n", ""))
    whole = dose(study, official, folder / "whole")
    command = [sys.executable, "-m", "histoproof", "dose", "s.yaml", "--data", str(official), "--out", "cut"]
    for kill in (signal.SIGKILL, signal.SIGTERM):
        seen = set((folder / "cut").glob("runs/*/trail.jsonl"))
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            trails = set((folder / "cut").glob("runs/*/trail.jsonl")) - seen
            if any(len(path.read_bytes().splitlines()) > 5 for path in trails):
                break
            time.sleep(0.005)
        process.send_signal(kill)
        process.wait(timeout=60)
    assert not (folder / "cut" / "dose.json").exists()
    after = dose(study, official, folder / "cut")
    assert plain(after) == plain(whole)
    assert not (folder / "cut" / "work").exists()


def test_an_output_of_other_data_is_refused(study: Path, official: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        dose(study, official, tmp_path / "full")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "study.json").write_text('{"data": {"folder": "x", "files": []}}')
    with pytest.raises(OutputError, match="other data"):
        dose(study, official, tmp_path / "old")
    with pytest.raises(DataError):
        dose(study, tmp_path / "absent", tmp_path / "new")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rates: [0.3]", "rates: [3.0]", "poisons.wild.rates.0 = 3.0 is not valid"),
        ("kind: out_of_range", "kind: out_of_rage", "poisons.wild"),
        ("seconds: 1", "seconds: 1, poisons: [mild]", "models.small names the poison mild; there are wild, flips"),
        ("config: c.yaml", "config: d.yaml", "no such config"),
        ("replicates: 100", "replicate: 100", "did you mean replicates?"),
    ],
)
def test_a_mistake_in_the_study_is_told_before_anything_starts(study: Path, old: str, new: str, message: str) -> None:
    study.write_text(STUDY.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_dose_spec(study)
    assert message in str(caught.value)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 4))
def test_many_aucs_are_the_aucs_one_by_one(seed: int, n: int, digits: int) -> None:
    draws = np.random.default_rng(seed)
    found = Predictions(np.arange(n), np.round(draws.normal(size=n), digits), draws.integers(0, 2, n).astype(np.uint8))
    weights = draws.integers(0, 4, (3, n)).astype(np.float64)
    for area, row in zip(auc_many(found, weights), weights, strict=True):
        expected = metrics.auc(found.label, found.probability, row)
        assert np.isnan(area) if expected is None else area == pytest.approx(expected, abs=1e-12)


def simulated(gap: float, seeds: int, rng: np.random.Generator) -> tuple[list[dict[str, Any]], dict[str, Predictions]]:
    """Rows of two settings whose scores differ by `gap` standard deviations, over the same 400 patches."""
    label = (np.arange(400) % 2).astype(np.uint8)
    patches = rng.normal(size=400)
    rows, found = [], {}
    for seed in range(seeds):
        for quarantine, shift in (("exclude", gap), ("include", 0.0)):
            logit = patches + (1 + shift) * label + 0.3 * rng.normal(size=400)
            name = f"{seed}-{quarantine}"
            found[name] = Predictions(np.arange(400), logit, label)
            keys = {"kind": "nan", "poison": "p", "rate": 0.1, "model": "m", "n_planted": 40, "n_quarantined": 40}
            auc = metrics.auc(label, found[name].probability)
            rows.append({**keys, "seed": seed, "quarantine": quarantine, "run": name, "auc": auc})
    return rows, found


@pytest.mark.parametrize(("gap", "expected"), [(1.0, "earns"), (-1.0, "costs"), (0.0, "open")])
def test_a_difference_is_called_one_only_where_its_interval_says_so(gap: float, expected: str) -> None:
    rows, found = simulated(gap, 3, np.random.default_rng(5))
    (row,) = differences(rows, lambda r: found[r["run"]], groups=None, replicates=200, seed=1)
    assert row["verdict"] == expected
    assert row["seeds"] == [0, 1, 2]


def test_where_there_is_no_difference_few_intervals_claim_one() -> None:
    """40 simulated studies without any effect: a 95 % interval may miss 0 in a few, not in many."""
    draws, missed = np.random.default_rng(11), 0
    for _ in range(40):
        rows, found = simulated(0.0, 3, draws)
        (row,) = differences(rows, lambda r, f=found: f[r["run"]], groups=None, replicates=100, seed=1)  # type: ignore[misc]
        missed += not row["low"] <= 0 <= row["high"]
    assert missed <= 6


def test_a_leak_that_quarantine_takes_away_is_no_cost() -> None:
    assert verdict("cross_split_duplicate", -0.02, -0.03, -0.01) == "honest"
    assert verdict("washout", -0.02, -0.03, -0.01) == "costs"
    assert verdict("washout", 0.0, 0.0, 0.0, blind=True) == "blind"
