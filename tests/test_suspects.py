"""Suspicious labels: flipped ones come first, and it is never more than a suspicion."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histoproof.data.audit import audit
from histoproof.data.features import FAMILIES, Features
from histoproof.data.pcam import official_name
from histoproof.data.store import open_store
from histoproof.data.suspects import fold_of_each, suspect_findings, suspects


def features(images: NDArray[np.uint8], block: int = 64) -> NDArray[np.float16]:
    found = Features()
    for start in range(0, len(images), block):
        found.add(images[start : start + block])
    return found.matrix()


@pytest.fixture(scope="module")
def synthetic(store: Path) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    split = open_store(store).split("train")
    assert split.labels is not None
    return features(split.images), np.array(split.labels)


def test_features_do_not_depend_on_the_blocks_they_came_in(store: Path) -> None:
    images = np.array(open_store(store).split("train").images[:96])
    assert np.array_equal(features(images, 96), features(images, 17))
    assert features(images).shape == (96, sum(FAMILIES))
    assert np.isfinite(features(images).astype(np.float32)).all()


def test_black_and_white_patches_have_features(store: Path) -> None:
    images = np.array(open_store(store).split("train").images[:64])
    images[3], images[5] = 0, 255
    assert np.isfinite(features(images).astype(np.float32)).all()


def test_flipped_labels_come_first(synthetic: tuple[NDArray[np.float16], NDArray[np.uint8]]) -> None:
    x, y = synthetic
    flipped = np.arange(0, 256, 20)
    labels = y.copy()
    labels[flipped] = 1 - labels[flipped]
    found, why = suspects(x, labels)
    assert why is None
    top = [suspect.row for suspect in found[: len(flipped)]]
    assert np.isin(top, flipped).mean() > 0.2  # chance: 0.05; 256 patches are few to learn from
    own = [suspect.tumour if suspect.label else 1 - suspect.tumour for suspect in found]
    assert own == sorted(own)
    assert max(own) < 0.5
    assert [(s.row, s.tumour) for s in suspects(x, labels)[0]] == [(s.row, s.tumour) for s in found]


def test_unknown_labels_take_no_part_and_one_class_cannot_be_judged(
    synthetic: tuple[NDArray[np.float16], NDArray[np.uint8]],
) -> None:
    x, y = synthetic
    labels = y.copy()
    labels[:100] = 255
    found, _ = suspects(x, labels)
    assert all(suspect.row >= 100 for suspect in found)
    assert suspects(x, np.zeros(len(x), dtype=np.uint8)) == (
        [],
        "one class has 0 patches: 10 are needed for 5 folds",
    )
    assert suspects(x[:0], y[:0])[0] == []


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_group_is_never_on_both_sides_and_classes_are_balanced(seed: int) -> None:
    draws = np.random.Generator(np.random.Philox(seed))
    labels = draws.integers(0, 2, 200)
    groups = draws.integers(0, 40, 200).astype(np.str_)
    parts = fold_of_each(labels, groups, 5, seed)
    assert all(len(set(parts[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    alone = fold_of_each(labels, None, 5, seed)
    for label in (0, 1):
        counts = np.bincount(alone[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_the_wording_is_a_suspicion(synthetic: tuple[NDArray[np.float16], NDArray[np.uint8]]) -> None:
    found = list(suspect_findings("train", suspects(*synthetic)[0]))
    assert found
    for finding in found:
        assert (finding.kind, finding.severity) == ("label_suspect", "warning")
        assert finding.detail.startswith("suspicion ")
        assert "the model errs as well" in finding.detail


def test_the_audit_ranks_them_when_asked_to(official: Path) -> None:
    result = audit(official, suspects=True)
    ranked = [f for f in result["findings"] if f["kind"] == "label_suspect" and f["split"] == "train"]
    assert [f["detail"].split(" ")[1] for f in ranked] == [str(k) for k in range(1, len(ranked) + 1)]
    assert not [f for f in audit(official)["findings"] if f["kind"] == "label_suspect"]
    check = next(c for c in result["checks"] if c["what"] == "suspicious labels")
    assert check["done"]


@pytest.mark.real
@pytest.mark.slow
def test_of_the_205_first_suspects_on_real_patches_60_percent_were_flipped(real_data: Path) -> None:
    with h5py.File(real_data / "pcam-real" / official_name("train", "x.h5")) as file:
        x = features(file["x"][:], 256)
    with h5py.File(real_data / "pcam-real" / official_name("train", "y.h5")) as file:
        y = file["y"][:].reshape(-1).astype(np.uint8)
    precision = []
    for seed in range(5):
        flipped = np.random.Generator(np.random.Philox(seed)).choice(len(y), 205, replace=False)
        labels = y.copy()
        labels[flipped] ^= 1
        precision.append(np.isin([s.row for s in suspects(x, labels)[0][:205]], flipped).mean())
    assert np.mean(precision) >= 0.6
