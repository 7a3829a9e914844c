"""Slices: the scores are those of the patches alone, what is planted is found, what is not there is not."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from histoproof import ledger, metrics
from histoproof.bootstrap import Interval
from histoproof.data.store import open_store
from histoproof.errors import ConfigError, DataError, OutputError, RunError, SealedError
from histoproof.evaluate import Predictions, evaluate, load_predictions
from histoproof.inference import load_model
from histoproof.journal import journal
from histoproof.slices import slices
from histoproof.slices.cut import Column, Slice, column_of, cut
from histoproof.slices.family import TESTED, judge
from histoproof.slices.gallery import galleries
from histoproof.slices.mix import silent, unseen, worst_mix
from histoproof.slices.report import Settings, look
from histoproof.slices.saliency import centre_share, occlusion
from histoproof.slices.scores import score_slices
from histoproof.slices.trees import halves, tree_slices
from histoproof.slices.words import score_words
from histoproof.train import train

from .test_cli import as_json, histoproof

QUICK = Settings(0.5, permutations=199, replicates=100)
CONFIG = """
data: {store: STORE}
model: {name: mlp, hidden: [8]}
optim: {lr: 0.01}
train: {epochs: 1, batch_size: 64}
evaluate: {bootstrap: 100}
"""


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices with a space")
    (folder / "c.yaml").write_text(CONFIG.replace("STORE", str(store)))
    train(folder / "c.yaml", out=folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def predictions(n: int, seed: int, *, error: float = 1.0) -> Predictions:
    """A model that ranks well, over n patches."""
    draw = np.random.default_rng(seed)
    label = (draw.random(n) < 0.4).astype(np.uint8)
    return Predictions(np.arange(n), (2 * label.astype(float) - 1) + draw.normal(0, error, n), label)


def numbers(n: int, seed: int, count: int = 6) -> dict[str, Column]:
    draw = np.random.default_rng(seed)
    return {f"f{k}": Column(f"f{k}", draw.normal(size=n)) for k in range(count)}


def planted(n: int, seed: int) -> tuple[Predictions, dict[str, Column]]:
    """30 % of the labels flipped in one category of patches."""
    found, columns = predictions(n, seed, error=0.7), numbers(n, seed + 1)
    site = np.array([f"site{k}" for k in np.random.default_rng(seed + 2).integers(0, 8, n)])
    rows = np.flatnonzero(site == "site3")
    label = found.label.copy()
    label[rows[: int(0.3 * len(rows))]] ^= 1
    return dataclasses.replace(found, label=label), {**columns, "site": Column("site", site)}


# What a slice's scores are


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.booleans())
def test_a_slice_is_scored_as_its_patches_alone_would_be(seed: int, n: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    found = predictions(n, seed)
    probability = np.round(found.probability, 1) if ties else found.probability
    members = draw.random(n) < 0.5
    if not members.any() or members.all():
        members[0] = not members[0]
    one = Slice("bin", ("f",), "f", members)
    (scored,) = score_slices([one], found.label, probability, threshold=0.5, groups=None, replicates=2, seed=1)
    inside, rest = (metrics.score(found.label[part], probability[part]) for part in (members, ~members))
    for name in ("accuracy", "auc", "recall", "specificity", "ece"):
        for ours, theirs in ((scored.scores[name].value, inside[name]), (scored.rest[name], rest[name])):
            assert (ours is None) == (theirs is None)
            assert ours is None or ours == pytest.approx(theirs, abs=1e-9)
    assert scored.scores["bias"].value == pytest.approx(probability[members].mean() - found.label[members].mean())
    crossed = [
        metrics.auc(found.label[keep], probability[keep])
        for keep in ((found.label == 0) | members, (found.label == 1) | members)
    ]
    if scored.scores["cross_auc"].value is not None:
        assert scored.scores["cross_auc"].value == pytest.approx((crossed[0] + crossed[1]) / 2)  # type: ignore[operator]


def test_an_interval_holds_the_value_and_a_gap_is_the_slice_less_the_rest() -> None:
    found, columns = planted(600, 3)
    for groups in (None, np.array([f"g{k % 30}" for k in range(600)])):
        every = cut(columns, least=20, pairs=False)
        scored = score_slices(
            every, found.label, found.probability, threshold=0.5, groups=groups, replicates=200, seed=1
        )
        for one in scored:
            for name, interval in one.scores.items():
                if interval.value is not None and interval.low is not None and interval.high is not None:
                    assert interval.low <= interval.value <= interval.high
                rest, gap = one.rest[name], one.gaps[name].value
                if gap is not None and rest is not None and interval.value is not None:
                    assert gap == pytest.approx(interval.value - rest)
            assert one.gaps["ece"].value is None
            assert one.groups == (None if groups is None else 30) or (one.groups or 0) < 30


def test_a_gaps_interval_holds_a_known_gap_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        right = draw.random(400) < np.where(np.arange(400) < 100, 0.7, 0.9)
        label = (draw.random(400) < 0.5).astype(np.uint8)
        probability = np.where(right == (label == 1), 0.9, 0.1)
        one = Slice("bin", ("f",), "f", np.arange(400) < 100)
        (scored,) = score_slices([one], label, probability, threshold=0.5, groups=None, replicates=200, seed=seed)
        gap = scored.gaps["accuracy"]
        assert gap.low is not None
        assert gap.high is not None
        held += gap.low <= -0.2 <= gap.high
    assert held >= 52  # 95 % of 60 is 57; fewer than 52 has a chance of 1 in 200


def test_without_positives_recall_is_said_to_be_undefined_never_zero() -> None:
    found = predictions(200, 1)
    members = found.label == 0
    members[np.flatnonzero(members)[:20]] = False
    one = Slice("category", ("site",), "site = a", members)
    (scored,) = score_slices([one], found.label, found.probability, threshold=0.5, groups=None, replicates=100, seed=1)
    recall = scored.scores["recall"]
    assert (recall.value, recall.low, recall.high) == (None, None, None)
    assert score_words("recall", recall.as_json()) == "recall undefined (0 positives)"
    assert scored.gaps["recall"].value is None
    tested = judge(
        [one], found.label, found.probability, threshold=0.5, second=np.zeros(200, bool), units=None,
        permutations=99, seed=1,
    )  # fmt: skip
    assert np.isnan(tested.p[0, TESTED.index("recall")])


def test_one_class_one_patch_and_nobody_in_a_slice_are_answered_not_crashed_on() -> None:
    for n, label in ((1, 1), (1, 0), (30, 0), (60, 1), (60, 0)):
        found = Predictions(np.arange(n), np.linspace(-1, 1, n), np.full(n, label, np.uint8))
        rows, _, family = look(found, numbers(n, 1), dataclasses.replace(QUICK, least=10), None)
        assert all(row["scores"]["auc"]["value"] is None for row in rows)
        assert all(0 < test["p"] <= 1 for row in rows for test in row["tests"].values())
        assert (family["slices"] == 0) == (n <= 30)  # a fifth of 30 is fewer than 10


# Which slices there are


def test_a_rule_read_aloud_picks_the_patches_it_picked() -> None:
    columns = numbers(500, 4, 3)
    names = {name: column.values.astype(np.float64) for name, column in columns.items()}
    found = predictions(500, 4)
    every = cut(columns, least=20, pairs=True)
    every += tree_slices(
        columns, found.label, np.random.default_rng(1).random(500), halves(np.arange(500), 1), least=20
    )
    assert {one.kind for one in every} == {"bin", "tail", "pair", "tree"}
    for one in every:
        picked = np.ones(500, dtype=bool)
        for part in one.rule.split(" and "):
            words = part.split()
            if len(words) == 5:  # low <= name < high
                low, _, name, _, high = words
                picked &= (float(low) <= names[name]) & (names[name] < float(high))
            else:
                name, sign, edge = words
                picked &= names[name] < float(edge) if sign == "<" else names[name] >= float(edge)
        assert (picked == one.members).all(), one.rule


def test_bins_part_the_patches_and_no_set_of_patches_is_looked_at_twice() -> None:
    n = 400
    columns = numbers(n, 5, 2)
    columns["twin"] = Column("twin", columns["f0"].values)
    columns["constant"] = Column("constant", np.zeros(n))
    columns["half"] = Column("half", np.repeat([0.0, 1.0], n // 2))
    every = cut(columns, least=10, pairs=True)
    bins = [one.members for one in every if one.kind == "bin" and one.factors == ("f0",)]
    assert (np.sum(bins, axis=0) == 1).all()
    assert len({one.members.tobytes() for one in every}) == len(every)
    assert not any("twin" in one.factors and len(one.factors) == 1 for one in every)
    assert not any("constant" in one.factors for one in every)
    assert all(10 <= one.members.sum() <= n - 10 for one in every)


def test_a_column_of_very_many_texts_is_a_number_or_nothing() -> None:
    many = np.array([str(k / 7) for k in range(900)])
    assert column_of("x", many).numeric  # type: ignore[union-attr]
    assert column_of("x", np.array([f"id{k}" for k in range(900)])) is None
    assert not column_of("x", np.array(["1", "2"] * 300)).numeric  # type: ignore[union-attr]


def test_a_tree_is_judged_on_patches_it_was_not_fitted_to_and_groups_are_not_torn() -> None:
    found, columns = planted(800, 6)
    units = np.arange(800) // 8
    second = halves(units, 1)
    assert all(len(set(second[units == u])) == 1 for u in range(100))
    wrong = ((found.probability >= 0.5) != (found.label == 1)).astype(float)
    trees = tree_slices(columns, found.label, wrong, second, least=10)
    assert trees
    for one in trees:
        assert one.among is not None
        fitted = ~one.among
        assert (fitted == second).all() or (fitted == ~second).all()
        # What the judged half holds cannot have made the rule.
        altered = np.where(one.among, np.random.default_rng(0).random(800), wrong)
        again = tree_slices(columns, found.label, altered, second, least=10)
        assert one.rule in [other.rule for other in again]


# What is found, and what is not


def test_a_planted_slice_comes_first_and_its_interval_excludes_the_whole() -> None:
    found, columns = planted(1200, 7)
    whole = metrics.score(found.label, found.probability)
    rows, _, _ = look(found, columns, QUICK, None)
    assert rows[0]["rule"] == "site = site3"
    assert rows[0]["flagged"]
    assert rows[0]["scores"]["accuracy"]["high"] < whole["accuracy"]
    assert rows[0]["gaps"]["accuracy"]["high"] < 0


def test_a_planted_tree_shaped_slice_is_found_with_its_rule() -> None:
    n = 3000
    found, columns = predictions(n, 8, error=0.6), numbers(n, 9, 4)
    bad = (columns["f0"].values.astype(float) > 0.3) & (columns["f1"].values.astype(float) < -0.3)
    flipped = bad & (np.random.default_rng(1).random(n) < 0.4)
    found = dataclasses.replace(found, label=np.where(flipped, 1 - found.label, found.label).astype(np.uint8))
    rows, _, _ = look(found, columns, QUICK, None)
    trees = [row for row in rows if row["kind"] == "tree" and row["flagged"]]
    assert any({"f0", "f1"} <= set(row["factors"]) for row in trees)
    assert {"f0", "f1"} == set(next(row for row in rows if row["kind"] == "pair")["factors"])


def test_nothing_is_flagged_where_nothing_is_wrong_in_19_of_20_copies() -> None:
    columns = numbers(500, 10)
    columns["site"] = Column("site", np.array([f"s{k % 7}" for k in range(500)]))
    flagged = 0
    for seed in range(20):
        found = predictions(500, 1000 + seed)
        wrong = ((found.probability >= 0.5) != (found.label == 1)).astype(float)
        second = halves(np.arange(500), seed)
        every = cut(columns, least=20, pairs=True) + tree_slices(columns, found.label, wrong, second, least=20)
        tested = judge(
            every, found.label, found.probability, threshold=0.5, second=second, units=None, permutations=199, seed=seed
        )
        assert (tested.p_corrected >= tested.p - 1e-12)[np.isfinite(tested.p)].all()
        flagged += bool(np.nanmin(tested.p_corrected) < 0.05)
    assert flagged <= 3  # with a true level of 5 %, four or more have a chance of 1 in 60


def test_a_slide_that_is_what_slides_are_is_flagged_over_patches_and_not_over_groups() -> None:
    draw = np.random.default_rng(2)
    slide = np.repeat(np.arange(40), 40)
    label = (draw.random(1600) < 0.5).astype(np.uint8)
    hard = draw.normal(0, 1.5, 40)[slide]  # each slide has its own difficulty
    logit = (2 * label.astype(float) - 1) * (1 + hard) + draw.normal(0, 1, 1600)
    found = Predictions(np.arange(1600), logit, label)
    names = np.array([f"slide{k}" for k in slide])
    columns = {"wsi": Column("wsi", names), "shade": Column("shade", draw.normal(size=40)[slide])}
    over_patches, _, _ = look(found, columns, QUICK, None)
    over_groups, _, family = look(found, columns, QUICK, names)
    assert any(row["flagged"] for row in over_patches)
    assert not any(row["flagged"] for row in over_groups)
    assert "40 groups" in family["assumes"]
    single = next(row for row in over_groups if row["kind"] == "category")
    assert single["groups"] == 1
    assert single["scores"]["accuracy"]["low"] is None
    assert "one group only" in single["scores"]["accuracy"]["why"]


def test_a_slice_that_fails_across_many_groups_is_flagged_over_groups() -> None:
    found, columns = planted(1600, 12)
    names = np.array([f"slide{k % 40}" for k in range(1600)])
    rows, _, _ = look(found, columns, QUICK, names)
    assert rows[0]["rule"] == "site = site3"
    assert rows[0]["flagged"]


def test_more_tumour_alone_does_not_make_a_slice_worse() -> None:
    """Recall is lower than specificity, so a slice with more tumour has more errors; its labels explain all of them."""
    draw = np.random.default_rng(3)
    rich = np.arange(2000) < 600
    label = (draw.random(2000) < np.where(rich, 0.8, 0.3)).astype(np.uint8)
    logit = np.where(label == 1, 0.2, -2.0) + draw.normal(0, 1, 2000)
    found = Predictions(np.arange(2000), logit, label)
    rows, _, _ = look(found, {"site": Column("site", np.where(rich, "rich", "poor"))}, QUICK, None)
    row = next(row for row in rows if row["rule"] == "site = rich")
    assert row["gaps"]["accuracy"]["high"] < 0
    assert not row["flagged"]


def test_the_same_patches_under_another_rule_are_said_to_be_the_same() -> None:
    found, columns = planted(800, 13)
    site = columns["site"].values
    columns["dark"] = Column("dark", np.where(site == "site3", -9.0, 0.0) + np.random.default_rng(0).normal(size=800))
    rows, _, _ = look(found, columns, QUICK, None)
    twins = [row for row in rows[:8] if set(row["factors"]) == {"dark"}]
    assert twins
    assert all(row["like"] is not None or row["rank"] == 1 for row in twins)


# Silent failure


def test_the_worst_mix_within_bounds_by_hand() -> None:
    shares, right = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    assert worst_mix(shares, right, np.ones(2), 1.5) == pytest.approx([1 / 3, 2 / 3])
    assert worst_mix(shares, right, np.ones(2), 2.0) == pytest.approx([0.25, 0.75])
    # Of a ratio: recall 0.9 and 0.1, with 10 % and 50 % tumour.
    mix = worst_mix(shares, np.array([0.09, 0.05]), np.array([0.1, 0.5]), 2.0)
    assert mix == pytest.approx([0.25, 0.75])
    held = worst_mix(shares, right, np.ones(2), 2.0, (np.array([0.6, 0.2]), 0.35))
    assert held == pytest.approx([0.375, 0.625])
    assert worst_mix(shares, right, np.ones(2), 2.0, (np.array([0.6, 0.2]), 0.9)) is None


def test_a_slice_that_misses_all_tumour_is_what_a_shift_of_mix_brings_out() -> None:
    draw = np.random.default_rng(4)
    n = 4000
    label = (draw.random(n) < 0.5).astype(np.uint8)
    dark = draw.random(n) < 0.2
    probability = np.where(label == 1, np.where(dark, 0.1, 0.9), 0.1)
    site = np.where(dark, "dark", "light")
    options: dict[str, Any] = {"threshold": 0.5, "second": halves(np.arange(n), 1), "units": np.arange(n)}
    accuracy = metrics.score_with_intervals(label, probability, replicates=200)["accuracy"]
    columns = {"site": Column("site", site), "noise": Column("noise", draw.normal(size=n))}
    rows = silent(
        columns, label, probability, accuracy=accuracy, least=20, bound=2.0, replicates=200, seed=1, **options
    )
    assert [row["factor"] for row in rows] == ["site", "noise"]
    assert rows[0]["recall"]["now"] == pytest.approx(0.8, abs=0.03)
    worst = rows[0]["recall"]["worst"]
    assert worst["low"] < 0.6 < worst["high"]
    assert rows[1]["recall"]["worst"]["value"] == pytest.approx(
        0.8, abs=0.03
    )  # chosen on one half, scored on the other
    shares = {one["rule"]: one["worst_share"] for one in rows[0]["slices"]}
    assert shares["site = dark"] == pytest.approx(0.4, abs=0.03)
    assert rows[0]["unnoticed"]["worst"]["value"] > worst["value"]
    with pytest.raises(ConfigError):
        silent(columns, label, probability, accuracy=accuracy, least=20, bound=1.0, replicates=200, seed=1, **options)


def test_a_slice_too_small_for_a_monitor_of_accuracy_is_named() -> None:
    label = np.repeat([1, 0], [500, 500]).astype(np.uint8)
    called = label == 1
    few = Slice("category", ("s",), "s = few", np.arange(1000) < 30)
    many = Slice("category", ("s",), "s = many", np.arange(1000) < 300)
    rows = unseen([few, many], label, called, Interval(0.95, 0.9, 0.99))
    assert [row["rule"] for row in rows] == ["s = few"]
    assert rows[0]["accuracy_lost"] == pytest.approx(0.03)
    assert rows[0]["recall_lost"] == pytest.approx(0.06)


# Galleries and saliency


def test_galleries_hold_the_most_confident_errors_first(store: Path) -> None:
    valid = open_store(store).split("valid")
    n = len(valid)
    assert valid.labels is not None
    draw = np.random.default_rng(5)
    found = Predictions(np.arange(n), draw.normal(size=n), np.asarray(valid.labels))
    shown = {
        one.name: one
        for one in galleries(found, valid, {"f": Column("f", draw.normal(size=n))}, threshold=0.5, count=5)
    }
    wrong = [row for row in range(n) if found.label[row] == 0 and found.probability[row] >= 0.5]
    expected = sorted(wrong, key=lambda row: -found.probability[row])[:5]
    assert [row["index"] for row in shown["false_positives"].rows] == expected
    assert shown["false_positives"].of == len(wrong)
    assert all(row["label"] == 1 and row["probability"] < 0.5 for row in shown["false_negatives"].rows)
    near = [abs(row["probability"] - 0.5) for row in shown["least_certain"].rows]
    assert near == sorted(near)
    assert (shown["false_positives"].images[0] == valid.images[expected[0]]).all()


class _Centre(nn.Module):
    """Looks at the centre, or everywhere alike."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, images: Tensor) -> Tensor:
        part = images if self.whole else images[:, :, 32:64, 32:64]
        return part.pow(2).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("cell", [8, 16, 32])
def test_saliency_tells_whether_the_centre_is_looked_at(trained: Path, cell: int) -> None:
    model = load_model(trained)
    noise = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3)).astype(np.uint8)
    maps = occlusion(dataclasses.replace(model, module=_Centre(False)), noise, cell=cell)
    assert centre_share(maps) == pytest.approx(np.ones(3), abs=1e-6)
    everywhere = occlusion(dataclasses.replace(model, module=_Centre(True)), noise, cell=cell)
    assert centre_share(everywhere) == pytest.approx(np.full(3, 1 / 9), abs=0.02)
    assert np.isnan(centre_share(np.zeros((1, 6, 6)))).all()


def test_saliency_of_a_patch_does_not_depend_on_its_company(trained: Path, store: Path) -> None:
    images = np.asarray(open_store(store).split("valid").images)[:30]
    model = load_model(trained)
    together = occlusion(model, images)
    assert (occlusion(model, images[7:8])[0] == together[7]).all()
    assert (occlusion(model, images) == together).all()
    with pytest.raises(ConfigError, match="cell is 10"):
        occlusion(model, images, cell=10)


# The command


def test_the_command_writes_what_it_says_and_again_the_same(run: Path, store: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    done = histoproof("slices", run, "--saliency", "--gallery", 1, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = as_json(done)
    assert result == json.loads((run / "slices" / "slices.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    figures = {path.stem for path in (run / "slices" / "figures").glob("*.png")}
    assert {"forest-cross_auc", "forest-recall", "curves", "mixes", "gallery-least_certain"} <= figures
    assert "saliency-least_certain" in figures
    assert set(result["saliency"]["centre_share"]) >= {"normal", "tumour"}
    assert (run / "factors" / "valid.csv").is_file()
    pictures = {p.name: p.read_bytes() for p in (run / "slices" / "figures").glob("*.png")}
    text = (run / "slices" / "slices.json").read_bytes()
    again = histoproof("slices", run, "--saliency", "--gallery", 1, "--json")
    assert again.returncode == 0
    assert "slices looked at" in as_json(again)["words"][2]
    assert (run / "slices" / "slices.json").read_bytes() == text
    assert {p.name: p.read_bytes() for p in (run / "slices" / "figures").glob("*.png")} == pictures


def test_columns_and_units_of_a_csv(run: Path, tmp_path: Path) -> None:
    n = len(load_predictions(run / "predictions" / "valid.npz").index)
    lines = "\n".join(f"{'north' if k % 3 else 'south'},g{k % 12}" for k in range(n))
    (tmp_path / "a valid.csv").write_text(f"site,slide\n{lines}\n")
    where = f"{tmp_path}/a {{split}}.csv"
    result = slices(run, groups=[f"{where}:site"], units=f"{where}:slide", out=tmp_path / "out", gallery=0)
    assert result["units"] == {"column": "slide", "count": 12}
    assert {"site = north", "site = south"} & {row["rule"] for row in result["slices"]}
    assert (tmp_path / "out" / "factors" / "valid.npz").is_file()
    assert not (run / "factors").exists()


def test_a_model_is_not_needed(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    assert slices(run, gallery=0)["n"] > 0
    with pytest.raises(RunError):
        slices(run, saliency=True)


def test_predictions_that_are_gone_changed_or_of_another_store_are_refused(run: Path, tmp_path: Path) -> None:
    path = run / "predictions" / "valid.npz"
    whole = path.read_bytes()
    found = load_predictions(path)
    dataclasses.replace(found, logit=found.logit + 1).save(path)
    with pytest.raises(DataError, match="not the file that"):
        slices(run)
    path.write_bytes(whole[:200])
    with pytest.raises(DataError):
        slices(run)
    path.unlink()
    with pytest.raises(DataError, match="no predictions on valid"):
        slices(run)
    path.write_bytes(whole)
    with pytest.raises(DataError, match="no such store"):
        slices(run, store=tmp_path / "nowhere")
    with pytest.raises(RunError, match="no such run"):
        slices(tmp_path / "nothing")


def test_the_test_split_stays_sealed(run: Path, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    with pytest.raises(DataError, match="no predictions on test"):
        slices(run, split="test", store=tmp_path / "store", open_test="curious")
    evaluate(run, split="test", store=tmp_path / "store", open_test="final")
    with pytest.raises(SealedError):
        slices(run, split="test", store=tmp_path / "store")
    assert not (run / "slices").exists()
    result = slices(run, split="test", store=tmp_path / "store", open_test="error analysis", gallery=0)
    assert result["split"] == "test"
    first, second = ledger.openings(tmp_path / "store")
    assert [first["reason"], second["reason"]] == ["final", "error analysis"]
    assert second["weights_sha256"] == first["weights_sha256"]
    again = evaluate(run, split="test", store=tmp_path / "store", open_test="again")
    assert not any("blind" in warning for warning in again["warnings"])  # the same model looked
    journal([run, tmp_path / "store"], tmp_path / "journal")


def test_a_folder_with_other_files_is_not_written_into(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="other files"):
        slices(run, out=tmp_path / "mine")
    with pytest.raises(OutputError, match="is a file"):
        slices(run, out=tmp_path / "mine" / "thesis.tex")


def test_a_mistake_is_one_message_and_exit_code_2(run: Path) -> None:
    done = histoproof("slices", run, "--groups", "nothing", "--json")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "no column 'nothing'" in as_json(done)["error"]["problem"]
    options: dict[str, Any]
    for options in ({"bound": 1.0}, {"bound": float("nan")}, {"least": 1}, {"threshold": 2.0}, {"permutations": 9}):
        with pytest.raises(ConfigError):
            slices(run, **options)
    assert not (run / "slices").exists()


def test_a_full_disk_is_said_and_leaves_nothing_half_written(run: Path, mounted: Any) -> None:
    small = mounted("size=256k")
    with pytest.raises(OutputError, match="No space left"):
        slices(run, out=small / "out")
    assert not (small / "out" / "slices.json").exists()
    assert not [name for _, _, files in os.walk(small) for name in files if name.endswith(".tmp")]


def test_a_threshold_of_ones_own_is_what_errors_are_counted_by(run: Path) -> None:
    found = load_predictions(run / "predictions" / "valid.npz")
    least = float(np.quantile(found.probability, 0.9))
    result = slices(run, threshold=least, gallery=2)
    assert (
        result["whole"]["recall"]["value"] == metrics.score(found.label, found.probability, threshold=least)["recall"]
    )
    assert result["galleries"][0]["of"] == int(((found.probability >= least) & (found.label == 0)).sum())


def test_arrays_are_not_changed_by_looking() -> None:
    found, columns = planted(300, 20)
    before: NDArray[np.float64] = found.logit.copy()
    look(found, columns, QUICK, None)
    assert (found.logit == before).all()
