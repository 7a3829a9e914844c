"""A store dealt anew: no group and no copy crosses, classes stay balanced, and training on a partition keeps every promise."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from histoproof import ledger, rng
from histoproof.config import parse
from histoproof.data import balance
from histoproof.data.batches import Pixels, channel_statistics
from histoproof.data.pack import pack
from histoproof.data.partition import Part, Patches, open_part, open_partition
from histoproof.data.split import split
from histoproof.data.store import open_store
from histoproof.diff import diff
from histoproof.errors import ConfigError, DataError, HistoproofError, OutputError, RunError, SealedError
from histoproof.evaluate import evaluate, load_predictions
from histoproof.experiment import config_digest, data_digest, prepare
from histoproof.files import JsonLines, read_json, read_lines
from histoproof.journal import check, journal
from histoproof.spikes import spikes
from histoproof.train import resume, train

from .test_train import CNN, _terminate_at, digests

CPU = torch.device("cpu")
MLP = {
    "model": {"name": "mlp", "hidden": [8]},
    "optim": {"lr": 0.01},
    "train": {"epochs": 1, "batch_size": 32},
    "evaluate": {"bootstrap": 100},
}


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    """A copy of the store, to write partitions into."""
    return Path(shutil.copytree(store, tmp_path / "own"))


def config(folder: Path, store: Path, **data: Any) -> Path:
    path = folder / "c.yaml"
    path.write_text(json.dumps({**MLP, "data": {"store": str(store), **data}}))
    return path


def part(store: Path, role: Any, name: str, fold: int | None = None) -> Part:
    found: Patches = open_part(open_store(store), role, name, fold)
    assert isinstance(found, Part)
    return found


def slides(store: Path) -> NDArray[np.str_]:
    found = [open_store(store).meta(name, "wsi") for name in ("train", "valid")]
    assert found[0] is not None
    assert found[1] is not None
    return np.concatenate([found[0], found[1]])


# Laws of dealing

COUNTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(any), min_size=2, max_size=40).map(np.array)
FRACTIONS = st.lists(st.integers(1, 20), min_size=2, max_size=4).map(lambda w: np.array(w) / sum(w))


def held(counts: NDArray[np.int64], parts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.stack([counts[parts == p].sum(axis=0) for p in range(n)])


def distance(counts: NDArray[np.int64], fractions: NDArray[np.float64], parts: NDArray[np.int64]) -> float:
    """The imbalance, as its definition says it."""
    shares = held(counts, parts, len(fractions)) / counts.sum(axis=0)
    return float(sum((shares[p, c] - f) ** 2 / f for p, f in enumerate(fractions) for c in range(2)))


@given(COUNTS, FRACTIONS, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_part_has_both_classes_and_no_group_could_be_moved_for_a_better_balance(
    counts: NDArray[np.int64], fractions: NDArray[np.float64], seed: int
) -> None:
    assume(((counts > 0).sum(axis=0) >= len(fractions)).all())
    parts = balance.deal(counts, fractions, seed)
    assert (held(counts, parts, len(fractions)) > 0).all()
    reached = distance(counts, fractions, parts)
    assert balance.imbalance(counts, fractions, parts) == pytest.approx(reached)
    for group in range(len(counts)):
        for other in range(len(fractions)):
            moved = parts.copy()
            moved[group] = other
            if (held(counts, moved, len(fractions)) > 0).all():
                assert distance(counts, fractions, moved) >= reached - 1e-9


@given(COUNTS, st.integers(2, 5), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_folds_are_never_less_balanced_than_scikit_learns(counts: NDArray[np.int64], k: int, seed: int) -> None:
    assume(((counts > 0).sum(axis=0) >= k).all())
    labels = np.concatenate([np.repeat([0, 1], both) for both in counts])
    groups = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    theirs = np.empty(len(counts), dtype=np.int64)
    state = rng.key(seed, "folds") % 2**32
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=state)
    for fold, (_, rows) in enumerate(splitter.split(labels, labels, groups)):
        theirs[groups[rows]] = fold
    assume((held(counts, theirs, k) > 0).all())
    even = np.full(k, 1 / k)
    assert distance(counts, even, balance.folds(counts, k, seed)) <= distance(counts, even, theirs) + 1e-9


def test_many_small_groups_come_out_exact() -> None:
    labels = (np.arange(30_000) % 10 < 4).astype(np.int64)
    counts = np.stack([1 - labels, labels], axis=1)
    for parts, fractions in (
        (balance.deal(counts, np.array([0.8, 0.2]), 1), [0.8, 0.2]),
        (balance.folds(counts, 3, 1), [1 / 3] * 3),
    ):
        exact = np.outer(fractions, [18_000, 12_000])
        assert np.abs(held(counts, parts, len(fractions)) - exact).max() <= 1


# Laws of a partition in a store


@pytest.mark.parametrize("groups", ["wsi", None, "tumor_patch+row"])
def test_each_patch_is_valid_in_one_fold_and_train_in_the_others_and_no_group_crosses(
    own: Path, tmp_path: Path, groups: str | None
) -> None:
    labels = slides(own)
    if groups == "tumor_patch+row":
        labels = np.array([f"g{(n * 7) % 23}" for n in range(len(labels))])
        (tmp_path / "g.csv").write_text("site\n" + "\n".join(labels.tolist()) + "\n")
        groups = f"{tmp_path / 'g.csv'}:site"
    result = split(own, groups=groups, folds=4, name="cv")
    everything = np.concatenate([part(own, "valid", "cv", fold).rows("exclude") for fold in range(4)])
    assert sorted(everything.tolist()) == list(range(352))
    y = np.concatenate([np.asarray(s.labels) for s in part(own, "valid", "cv", 0).pool])
    for fold in range(4):
        train_rows, valid_rows = (part(own, role, "cv", fold).rows("exclude") for role in ("train", "valid"))
        assert sorted([*train_rows, *valid_rows]) == list(range(352))
        assert not set(labels[train_rows]) & set(labels[valid_rows])
        told = result["parts"][str(fold)]
        assert told == {
            "n": len(valid_rows),
            "fraction": len(valid_rows) / 352,
            "positive": int(y[valid_rows].sum()),
            "groups": len(set(labels[valid_rows])),
        }
        assert abs(len(valid_rows) / 352 - 0.25) < 0.06
        assert abs(y[valid_rows].mean() - y.mean()) < 0.1
    assert result["warnings"] == []


def test_fractions_may_hold_a_test_of_their_own(own: Path) -> None:
    result = split(own, groups="wsi", fractions={"train": 0.6, "test": 0.2, "valid": 0.2}, name="three")
    assert list(result["parts"]) == ["train", "valid", "test"]
    rows = {role: set(part(own, role, "three").rows("exclude").tolist()) for role in ("train", "valid", "test")}
    assert rows["train"] | rows["valid"] | rows["test"] == set(range(352))
    assert sum(map(len, rows.values())) == 352
    for role, asked in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert len(rows[role]) / 352 == pytest.approx(asked, abs=0.04)
    names = {role: set(slides(own)[sorted(found)]) for role, found in rows.items()}
    assert not names["train"] & names["valid"] | names["train"] & names["test"] | names["valid"] & names["test"]


def test_the_same_store_groups_and_seed_give_the_same_partition_and_another_seed_another(
    store: Path, tmp_path: Path
) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        copy = Path(shutil.copytree(store, tmp_path / name))
        found.append(split(copy, groups="wsi", fractions={"train": 0.5, "valid": 0.5}, seed=seed)["sha256"])
    assert found[0] == found[1] != found[2]


def test_a_partition_adds_to_the_manifest_and_changes_nothing_else(own: Path) -> None:
    before, files = read_json(own / "manifest.json"), {p: p.read_bytes() for p in own.rglob("*") if p.is_file()}
    one = split(own, folds=2)
    two = split(own, fractions={"train": 0.8, "valid": 0.2})
    after = read_json(own / "manifest.json")
    assert list(after.pop("partitions")) == ["folds-2", "fractions"] == [one["name"], two["name"]]
    assert after == before
    for path, content in files.items():
        if path.name != "manifest.json":
            assert path.read_bytes() == content
    assert open_store(own).content_sha256 == before["content_sha256"]
    made = {str(p.relative_to(own)) for p in own.rglob("*") if p.is_file() and p not in files}
    assert made == {"partitions/folds-2.npy", "partitions/fractions.npy", ".lock"}


def test_a_partition_is_never_overwritten(own: Path) -> None:
    split(own, folds=2, name="cv")
    before = {p: p.read_bytes() for p in own.rglob("*") if p.is_file()}
    for name in ("cv", "CV"):
        with pytest.raises(DataError, match="never overwritten"):
            split(own, folds=3, name=name)
    assert {p: p.read_bytes() for p in own.rglob("*") if p.is_file()} == before


def patches(n: int) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.Philox(5)).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


def test_copies_stay_on_one_side_though_their_groups_do_not_know_of_them(
    tmp_path: Path, write_split: Callable[..., None]
) -> None:
    x = patches(120)
    x[71] = x[3]
    x[100] = np.rot90(x[4], 3)[:, ::-1]
    x[[10, 60, 110]] = 255
    write_split(tmp_path / "d", "train", x[:80], np.arange(80) % 2)
    write_split(tmp_path / "d", "valid", x[80:], np.arange(40) % 2)
    pack(tmp_path / "d", tmp_path / "s")
    known = {"kind": "near_duplicate", "severity": "warning", "detail": "shifted"}
    lines = JsonLines(tmp_path / "s" / "findings.jsonl")
    lines.append({**known, "split": "valid", "index": 25, "other": {"split": "train", "index": 5}})
    lines.append({**known, "split": "train", "index": 6, "other": {"split": "test", "index": 0}})
    lines.append({**known, "split": "train", "index": 60, "other": {"split": "train", "index": 10}})
    lines.close()
    groups = [f"g{n // 4}" for n in range(120)]  # 3, 4, 5 are in g0 and g1; their copies in g17, g25, g26
    (tmp_path / "g.csv").write_text("slide\n" + "\n".join(groups) + "\n")
    for seed in range(8):
        result = split(tmp_path / "s", groups=f"{tmp_path / 'g.csv'}:slide", folds=3, name=f"s{seed}", seed=seed)
        assert result["copies"] == {"pairs": 3, "groups_joined": 3}
        parts = open_partition(open_store(tmp_path / "s"), f"s{seed}").parts
        assert parts[3] == parts[71]
        assert parts[4] == parts[100]
        assert parts[5] == parts[105]
        for group in set(groups):
            assert len({int(parts[n]) for n in range(120) if groups[n] == group}) == 1
    alone = split(tmp_path / "s", folds=3, name="alone")
    assert alone["groups"]["n"] == 114  # three copies joined, three white patches in quarantine
    assert "slides are unknown" in alone["warnings"][0]
    assert "leakage by slide cannot be excluded" in alone["warnings"][0]


def test_quarantined_and_unlabelled_patches_are_not_balanced_and_yet_stay_with_their_group(
    tmp_path: Path, write_split: Callable[..., None]
) -> None:
    x = patches(64).astype(np.float32)
    x[:8, 0, 0, 0] = np.nan
    labels = np.arange(64) % 2
    labels[8:12] = 7
    write_split(tmp_path / "d", "train", x, labels)
    pack(tmp_path / "d", tmp_path / "s")
    groups = np.array([f"g{n % 16}" if n >= 4 else "faulty" for n in range(64)])
    (tmp_path / "g.csv").write_text("slide\n" + "\n".join(groups.tolist()) + "\n")
    result = split(tmp_path / "s", groups=f"{tmp_path / 'g.csv'}:slide", folds=2, name="cv")
    assert (result["from"], result["groups"]["n"]) == (["train"], 16)
    assert sum(found["n"] for found in result["parts"].values()) == 52
    parts = open_partition(open_store(tmp_path / "s"), "cv").parts
    assert all(len(set(parts[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    usable, all_labelled = (
        [part(tmp_path / "s", "valid", "cv", f).rows(q) for f in (0, 1)] for q in ("exclude", "include")
    )
    assert sorted(np.concatenate(usable)) == list(range(12, 64))
    assert sorted(np.concatenate(all_labelled)) == [*range(8), *range(12, 64)]


# What cannot be done is said in words


def test_mistakes_are_answered_and_nothing_is_written(own: Path, tmp_path: Path, store: Path) -> None:
    (tmp_path / "short.csv").write_text("site\na\nb\n")
    (tmp_path / "two.csv").write_text("site\n" + "a\n" * 200 + "b\n" * 152)
    (tmp_path / "pure.csv").write_text(
        "site\n" + "".join(f"{'n' if y == 0 else k % 3}\n" for k, y in enumerate(_labels(store)))
    )
    halves = {"train": 0.5, "valid": 0.5}
    cases: list[tuple[dict[str, Any], type[HistoproofError], str]] = [
        ({"groups": "slide", "folds": 2}, DataError, "knows no column 'slide'.*wsi"),
        ({"groups": "short.csv", "folds": 2}, DataError, "--groups short.csv:COLUMN"),
        ({"groups": f"{tmp_path}/absent.csv:site", "folds": 2}, DataError, "no such groups file"),
        ({"groups": f"{tmp_path}/short.csv:place", "folds": 2}, DataError, "no column 'place'.*site"),
        (
            {"groups": f"{tmp_path}/short.csv:site", "folds": 2},
            DataError,
            "has 2 rows, train and valid have 352 patches",
        ),
        ({"groups": f"{tmp_path}/two.csv:site", "folds": 3}, DataError, "2 groups cannot be dealt into 3 folds"),
        ({"groups": f"{tmp_path}/pure.csv:site", "folds": 3}, DataError, "without normal patches.*1 of 4 groups"),
        ({"folds": 1}, DataError, "1 folds cannot be made"),
        ({}, DataError, "either fractions or folds"),
        ({"folds": 2, "fractions": halves}, DataError, "either fractions or folds"),
        ({"fractions": {"train": 0.5, "valid": 0.4}}, DataError, "add up to 0.9"),
        ({"fractions": {"train": 1.5, "valid": -0.5}}, DataError, "valid=-0.5 is no fraction"),
        ({"fractions": {"train": float("nan"), "valid": 0.5}}, DataError, "train=nan is no fraction"),
        ({"fractions": {"train": 0.5, "dev": 0.5}}, DataError, "no part dev"),
        ({"fractions": {"train": 1.0}}, DataError, "no fraction was given for valid"),
        ({"folds": 2, "name": "../x"}, DataError, "is no name for a partition"),
        ({"folds": 2, "name": ""}, DataError, "is no name for a partition"),
        ({"folds": 2, "name": "null"}, DataError, "is no name for a partition"),
        ({"folds": 2, "name": "12"}, DataError, "is no name for a partition"),
        ({"folds": 2, "pooled": ["train", "test"]}, SealedError, "the test split is sealed"),
        ({"folds": 2, "pooled": ["dev"]}, DataError, "cannot pool dev"),
    ]
    before = {p: p.read_bytes() for p in own.rglob("*") if p.is_file()}
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=f"(?s){message}"):
            split(own, **arguments)
    assert {p: p.read_bytes() for p in own.rglob("*") if p.is_file()} == before


def _labels(store: Path) -> list[int]:
    return [int(y) for name in ("train", "valid") for y in open_store(store).split(name).labels]  # type: ignore[union-attr]


def test_a_group_larger_than_a_part_is_told_with_what_was_reached(own: Path, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("site\n" + "".join(f"{'big' if n < 300 else n}\n" for n in range(352)))
    result = split(own, groups=f"{tmp_path / 'g.csv'}:site", fractions={"train": 0.5, "valid": 0.5})
    assert "the group big holds 85.2%" in result["warnings"][0]
    assert any("asked for were 50.0%" in warning for warning in result["warnings"])
    assert sorted(p["n"] for p in result["parts"].values()) == [52, 300]


def test_a_config_that_names_what_is_not_there_is_answered_before_a_run_is_made(own: Path, tmp_path: Path) -> None:
    split(own, folds=3, name="cv")
    split(own, fractions={"train": 0.5, "valid": 0.5}, name="half")
    for overrides, message in (
        (["data.partition=cw"], "no such partition.*cv, half"),
        (["data.partition=cv"], "data.fold = null.*has 3 folds.*0 to 2"),
        (["data.partition=cv", "data.fold=3"], "data.fold = 3.*0 to 2"),
        (["data.partition=half", "data.fold=0"], "has no folds"),
        (["data.fold=0"], "fold = 0 needs a partition"),
    ):
        with pytest.raises(ConfigError, match=f"(?s){message}"):
            train(config(tmp_path, own), overrides, out=tmp_path / "run")
    path = own / "partitions" / "cv.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match=r"cv.npy is not what the manifest says"):
        train(config(tmp_path, own), ["data.partition=cv", "data.fold=0"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_that_cannot_be_written_to_is_told(own: Path, mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=64m")
    shutil.copytree(own, folder / "s")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(OutputError, match="(?s)Read-only file system.*copy it where you may write"):
        split(folder / "s", folds=2)
    assert "partitions" not in read_json(folder / "s" / "manifest.json")


# Training on a partition


def test_without_a_partition_an_experiment_is_what_it_was_before_there_were_any(store: Path) -> None:
    text = CNN.replace("STORE", str(store)).replace("PRECISION", "precision: fp32")
    import yaml

    resolved = parse(yaml.safe_load(text))
    assert config_digest(resolved) == "0ec813e9acdcbafb81e862bd989b0264b05c64f8a88d01f7f3ff6507c3ec41a7"
    assert data_digest(prepare(resolved)) == "f8b5056586e3c149abd5597a9af5026becface8242f8a798edad30a8dea7d2fa"


@pytest.mark.parametrize("residency", ["disk", "ram", "device"])
def test_pooled_pixels_are_those_of_the_two_splits_in_the_order_asked_for(own: Path, residency: Any) -> None:
    split(own, folds=2, name="cv")
    pooled, opened = part(own, "train", "cv", 0), open_store(own)
    whole = np.concatenate([opened.split("train").images, opened.split("valid").images])
    pixels = Pixels(pooled, residency, CPU)
    for wanted in ([0, 255, 256, 351], [351, 0, 300, 2, 300], [5], [260], list(range(351, -1, -1))):
        at = np.array(wanted, dtype=np.int64)
        assert np.array_equal(pixels.take(at).numpy(), whole[at])
        assert np.array_equal(pooled.images[at], whole[at])
    assert np.array_equal(pooled.images[256], opened.split("valid").images[0])
    assert (pooled.locate(255), pooled.locate(256)) == (("train", 255), ("valid", 0))
    rows = pooled.rows("exclude")
    channels = whole[rows].reshape(-1, 3) / 255
    mean, deviation = channel_statistics(pooled, rows)
    assert np.allclose(mean, channels.mean(axis=0))
    assert np.allclose(deviation, channels.std(axis=0))


def test_a_partition_into_the_stores_own_splits_trains_to_the_same_bits(own: Path, tmp_path: Path) -> None:
    """Reading through a partition changes nothing: the same patches in the same places give the same weights."""
    (tmp_path / "g.csv").write_text("from\n" + "t\n" * 256 + "v\n" * 96)
    split(own, groups=f"{tmp_path / 'g.csv'}:from", fractions={"train": 0.7, "valid": 0.3}, name="same")
    path = tmp_path / "c.yaml"
    path.write_text(
        CNN.replace("STORE", str(own)).replace("PRECISION", "precision: fp32").replace("epochs: 3", "epochs: 1")
    )
    plain, pooled = train(path, out=tmp_path / "a"), train(path, ["data.partition=same"], out=tmp_path / "b")
    assert plain["weights_sha256"] == pooled["weights_sha256"]
    assert plain["best"] == pooled["best"]
    assert read_lines(tmp_path / "a" / "metrics.jsonl") == read_lines(tmp_path / "b" / "metrics.jsonl")
    one, two = (load_predictions(tmp_path / run / "predictions" / "valid.npz") for run in ("a", "b"))
    assert np.array_equal(one.index + 256, two.index)
    assert np.array_equal(one.logit, two.logit)
    assert diff(tmp_path / "a", tmp_path / "b")["first_divergence"]["what"] == "config"


def test_a_fold_trains_evaluates_and_is_told_of_in_the_journal(own: Path, tmp_path: Path) -> None:
    split(own, groups="wsi", folds=4, name="cv")
    path = config(tmp_path, own, partition="cv", fold=2)
    result = train(path, out=tmp_path / "run")
    rows = part(own, "valid", "cv", 2).rows("exclude")
    scored = evaluate(tmp_path / "run")
    found = load_predictions(tmp_path / "run" / "predictions" / "valid.npz")
    assert np.array_equal(found.index, rows)
    assert found.label.tolist() == [_labels(own)[row] for row in rows]
    assert scored["n"] == len(rows) == read_json(own / "manifest.json")["partitions"]["cv"]["parts"]["2"]["n"]
    assert scored["groups"] == {"column": "wsi", "count": len(set(slides(own)[rows]))}
    assert scored["partition"] == result["partition"]
    assert scored["partition"]["offsets"] == {"train": 0, "valid": 256}
    assert spikes(tmp_path / "run")["steps"] == result["steps"]
    journal([tmp_path / "run"], tmp_path / "j")
    assert check([tmp_path / "run"], tmp_path / "j") == {"ok": True, "problems": []}
    for page in ("journal.html", "journal.md"):
        assert "cv, fold 2 as valid" in (tmp_path / "j" / page).read_text()
        assert "--groups wsi --folds 4" in (tmp_path / "j" / page).read_text()


@pytest.mark.parametrize("override", ["data.residency=ram", "data.prefetch=0", "train.workers=1"])
def test_how_a_fold_is_read_changes_no_bit_and_another_fold_is_another_experiment(
    own: Path, tmp_path: Path, override: str
) -> None:
    split(own, groups="wsi", folds=4, name="cv")
    path = config(tmp_path, own, partition="cv", fold=0)
    one, two = train(path, out=tmp_path / "a"), train(path, [override], out=tmp_path / "b")
    assert digests(one) == digests(two)
    if override == "data.prefetch=0":
        train(path, ["data.fold=1"], out=tmp_path / "c")
        parting = diff(tmp_path / "a", tmp_path / "c")["first_divergence"]
        assert (parting["what"], parting["a"]) == ("config", {"data.fold": 0})


def test_a_partition_that_was_changed_is_noticed_on_resume_in_diff_and_by_evaluate(
    own: Path, tmp_path: Path, store: Path
) -> None:
    other = Path(shutil.copytree(store, tmp_path / "other"))
    for folder, seed in ((own, 1), (other, 2)):
        split(folder, fractions={"train": 0.8, "valid": 0.2}, name="p", seed=seed)
    train(config(tmp_path, own, partition="p"), ["train.epochs=4"], out=tmp_path / "half", progress=_terminate_at(2))
    train(config(tmp_path, own, partition="p"), out=tmp_path / "a")
    train(config(tmp_path, other, partition="p"), out=tmp_path / "b")
    assert diff(tmp_path / "a", tmp_path / "b")["first_divergence"]["what"] == "data"
    with pytest.raises(DataError, match="the partition p of .* is not the one"):
        evaluate(tmp_path / "a", store=other)
    text = (tmp_path / "half" / "config.yaml").read_text()
    (tmp_path / "half" / "config.yaml").write_text(text.replace(str(own), str(other)))
    with pytest.raises(RunError, match="the data of .* was changed since the run began"):
        resume(tmp_path / "half")


def test_a_partitions_test_is_sealed_like_the_stores_own_and_the_ledger_names_it(own: Path, tmp_path: Path) -> None:
    split(own, groups="wsi", fractions={"train": 0.6, "valid": 0.2, "test": 0.2}, name="three")
    split(own, groups="wsi", folds=3, name="cv")
    train(config(tmp_path, own, partition="three"), out=tmp_path / "a")
    train(config(tmp_path, own, partition="cv", fold=0), out=tmp_path / "b")
    with pytest.raises(SealedError):
        evaluate(tmp_path / "a", split="test")
    inner = evaluate(tmp_path / "a", split="test", open_test="a test of the seal")
    assert inner["n"] == len(part(own, "test", "three").rows("exclude"))
    assert inner["partition"]["name"] == "three"
    outer = evaluate(tmp_path / "b", split="test", open_test="a test of the seal")
    assert (outer["n"], outer["partition"]) == (64, None)
    assert [line.get("partition") for line in ledger.openings(own)] == ["three", None]


# The command


def histoproof(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "histoproof", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_the_command_prints_what_was_reached_or_what_is_wrong(own: Path) -> None:
    done = histoproof("data", "split", own, "--fractions", "train=0.8,valid=0.2", "--groups", "wsi", "--from", "train")
    assert done.returncode == 0, done.stderr
    assert "train: " in done.stdout
    assert "groups (wsi)" in done.stdout
    assert "--set data.partition=fractions" in done.stdout
    made = histoproof("data", "split", own, "--folds", 3, "--json")
    assert json.loads(made.stdout)["parts"]["0"]["n"] > 0
    wrong = histoproof("data", "split", own, "--fractions", "train=x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "valid: train=0.8,valid=0.2" in wrong.stderr


@pytest.mark.real
def test_real_patches_are_dealt_by_their_stain_clusters(real_data: Path, real_store: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(real_store, tmp_path / "s"))
    csvs = real_data / "pcam-real" / "{split}_provenance.csv"
    result = split(own, groups=f"{csvs}:stain_cluster_k40", folds=5, name="cv")
    assert (result["groups"]["n"], result["copies"]["pairs"], result["warnings"]) == (40, 0, [])
    clusters: list[str] = []
    for name in ("train", "valid"):
        with Path(str(csvs).replace("{split}", name)).open() as file:
            clusters += [row["stain_cluster_k40"] for row in csv.DictReader(file)]
    of = np.array(clusters)
    for fold in range(5):
        rows = {role: part(own, role, "cv", fold).rows("exclude") for role in ("train", "valid")}
        assert not set(of[rows["train"]]) & set(of[rows["valid"]])
        told = result["parts"][str(fold)]
        assert told["fraction"] == pytest.approx(0.2, abs=0.01)
        assert told["positive"] / told["n"] == pytest.approx(0.407, abs=0.02)
    groups = {"column": "stain_cluster_k40", "csv": str(csvs)}
    path = tmp_path / "c.yaml"
    data = {"store": str(own), "partition": "cv", "fold": 3}
    path.write_text(json.dumps({**MLP, "data": data, "evaluate": {"bootstrap": 100, "groups": groups}}))
    assert train(path, out=tmp_path / "run")["status"] == "finished"
    assert evaluate(tmp_path / "run")["groups"]["count"] == result["parts"]["3"]["groups"]
