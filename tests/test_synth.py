import csv
import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histoproof.data import pcam, synth
from histoproof.errors import DataError, OutputError

Pixels = NDArray[np.uint8]
SIZES: dict[pcam.SplitName, int] = {"train": 600, "valid": 7, "test": 300}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "look-alike"
    synth.synth(out, train=SIZES["train"], valid=SIZES["valid"], test=SIZES["test"])
    return out


def pixels(folder: Path, split: pcam.SplitName) -> NDArray[Any]:
    with h5py.File(folder / pcam.official_name(split, "x.h5")) as file:
        return np.asarray(file["x"])


def labels(folder: Path, split: pcam.SplitName) -> Pixels:
    with h5py.File(folder / pcam.official_name(split, "y.h5")) as file:
        return np.asarray(file["y"]).ravel()


def meta(folder: Path, split: pcam.SplitName) -> list[dict[str, str]]:
    return list(pcam.read_meta(folder / pcam.official_name(split, "meta.csv"), SIZES[split]))


def drawn(split: pcam.SplitName, indices: range, seed: int = 42) -> list[synth._Patch]:
    return list(synth._patches(synth._source(seed, split), indices))


def test_the_files_are_the_official_ones(dataset: Path) -> None:
    found = pcam.find_splits(dataset)
    assert {source.name: source.n for source in found} == SIZES
    assert all(source.dtype == "uint8" and source.y and source.meta for source in found)
    assert len(list(dataset.iterdir())) == 9
    with h5py.File(dataset / pcam.official_name("valid", "x.h5")) as file:
        assert file["x"].shape == (7, 96, 96, 3)
        assert (file["x"].chunks, file["x"].compression) == ((1, 96, 96, 3), "gzip")
    with h5py.File(dataset / pcam.official_name("valid", "y.h5")) as file:
        assert (file["y"].shape, file["y"].dtype) == ((7, 1, 1, 1), np.uint8)


def test_meta_has_the_official_columns_and_values(dataset: Path) -> None:
    with (dataset / pcam.official_name("train", "meta.csv")).open(newline="") as file:
        assert tuple(next(csv.reader(file))) == pcam.META_COLUMNS
    for row in meta(dataset, "train"):
        assert {row["tumor_patch"], row["center_tumor_patch"]} <= {"True", "False"}
        assert int(row["coord_y"]) >= 0
        assert int(row["coord_x"]) >= 0
        assert row["wsi"].startswith(("camelyon16_train_tumor_", "camelyon16_train_normal_"))
    assert all(row["wsi"].startswith("camelyon16_test_") for row in meta(dataset, "test"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_is_1_exactly_where_the_mask_reaches_the_centre(dataset: Path, split: pcam.SplitName) -> None:
    patches = drawn(split, range(SIZES[split]))
    masks = np.stack([patch.mask for patch in patches])
    assert (pixels(dataset, split) == np.stack([patch.pixels for patch in patches])).all()
    in_centre, anywhere = masks[:, 32:64, 32:64].any((1, 2)), masks.any((1, 2))
    assert (labels(dataset, split) == in_centre).all()
    rows = meta(dataset, split)
    assert [row["center_tumor_patch"] == "True" for row in rows] == in_centre.tolist()
    assert [row["tumor_patch"] == "True" for row in rows] == anywhere.tolist()


def test_some_negatives_hold_tumour_around_the_centre(dataset: Path) -> None:
    rows = meta(dataset, "train")
    ring = [row for row in rows if row["tumor_patch"] == "True" and row["center_tumor_patch"] == "False"]
    assert 20 <= len(ring) <= 80


def test_half_of_the_patches_are_positive_and_so_is_half_of_every_even_prefix(dataset: Path) -> None:
    for split, n in SIZES.items():
        y = labels(dataset, split).astype(int)
        assert abs(2 * y.sum() - n) <= 1
        assert (y[: n // 2 * 2].reshape(-1, 2).sum(1) == 1).all()
    assert 0.4 < labels(dataset, "train")[::2].mean() < 0.6, "which of a pair is positive is drawn"


def test_no_slide_is_in_two_splits_and_normal_slides_hold_no_tumour(dataset: Path) -> None:
    slides = {split: {row["wsi"] for row in meta(dataset, split)} for split in SIZES}
    assert len(slides["train"]) == 24
    assert len(slides["test"]) == 12
    assert not slides["train"] & slides["valid"]
    assert {row["tumor_patch"] for row in meta(dataset, "train") if "normal" in row["wsi"]} == {"False"}
    for seed in range(20):
        train, valid = (synth._slide_names(seed, split) for split in ("train", "valid"))
        assert len({*train, *valid}) == 24 + 12


def test_slides_differ_in_colour(dataset: Path) -> None:
    x, wsi = pixels(dataset, "train"), np.array([row["wsi"] for row in meta(dataset, "train")])
    blue_over_red = x[..., 2].mean((1, 2)) - x[..., 0].mean((1, 2))
    between = np.array([blue_over_red[wsi == slide].mean() for slide in np.unique(wsi)])
    within = np.mean([blue_over_red[wsi == slide].std() for slide in np.unique(wsi)])
    assert between.std() > within


def test_no_two_patches_are_alike_and_none_is_blank(dataset: Path) -> None:
    x = np.concatenate([pixels(dataset, split) for split in SIZES])
    assert len({patch.tobytes() for patch in x}) == len(x)
    assert (x.std(axis=(1, 2, 3)) > 8).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(dataset: Path, tmp_path: Path) -> None:
    for seed in (42, 43):
        synth.synth(tmp_path / str(seed), train=0, valid=7, test=0, seed=seed)
    for part in ("x.h5", "y.h5", "meta.csv"):
        name = pcam.official_name("valid", part)
        assert (tmp_path / "42" / name).read_bytes() == (dataset / name).read_bytes()
    assert (pixels(tmp_path / "43", "valid") != pixels(dataset, "valid")).any(axis=(1, 2, 3)).all()


def test_a_seed_always_gives_these_pixels() -> None:
    content = b"".join(patch.pixels.tobytes() for patch in drawn("train", range(20)))
    assert hashlib.sha256(content).hexdigest() == "458ef3f7be810a46acd1718dc611eadf4fa646514b9d7e102d7fde2a2c3373a4"


def test_a_patch_does_not_depend_on_how_many_there_are_nor_on_the_block(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synth, "_BLOCK", 5)
    synth.synth(tmp_path / "short", train=13, valid=0, test=0)
    assert (pixels(tmp_path / "short", "train") == pixels(dataset, "train")[:13]).all()
    assert (labels(tmp_path / "short", "train") == labels(dataset, "train")[:13]).all()
    (alone,) = drawn("train", range(500, 501))
    assert (alone.pixels == pixels(dataset, "train")[500]).all()


def test_float32_holds_the_same_whole_numbers(dataset: Path, tmp_path: Path) -> None:
    said = synth.synth(tmp_path / "float", train=0, valid=7, test=0, dtype="float32")
    x = pixels(tmp_path / "float", "valid")
    assert x.dtype == np.float32
    assert said["dtype"] == "float32"
    assert (x == pixels(dataset, "valid")).all()


def test_uncompressed_pixels_lie_in_one_piece(dataset: Path, tmp_path: Path) -> None:
    synth.synth(tmp_path / "plain", train=0, valid=7, test=0, compression="none")
    with h5py.File(tmp_path / "plain" / pcam.official_name("valid", "x.h5")) as file:
        assert (file["x"].chunks, file["x"].compression) == (None, None)
    assert (pixels(tmp_path / "plain", "valid") == pixels(dataset, "valid")).all()


def test_a_split_of_0_patches_is_left_out_and_progress_counts_all_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synth, "_BLOCK", 4)
    seen: list[tuple[int, int]] = []
    said = synth.synth(
        tmp_path / "out", train=6, valid=0, test=3, progress=lambda done, total: seen.append((done, total))
    )
    assert [source.name for source in pcam.find_splits(tmp_path / "out")] == ["train", "test"]
    assert not list((tmp_path / "out").glob("*valid*"))
    assert seen == [(4, 9), (6, 9), (9, 9)]
    assert said["out"] == str(tmp_path / "out")
    assert said["seed"] == 42
    assert said["splits"]["train"]["n"] == 6
    assert said["splits"]["train"]["positive"] == 3
    assert list(said["splits"]) == ["train", "test"]


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="exists already"):
        synth.synth(tmp_path, train=2, valid=0, test=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth.synth(tmp_path / "out", train=2, valid=0, test=0, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"train": -5}, "train: -5"),
        ({"train": 0, "valid": 0, "test": 0}, "0 patches"),
        ({"dtype": "int16"}, "int16"),
        ({"compression": "zstd"}, "zstd"),
    ],
)
def test_bad_input_is_refused_with_what_is_valid_and_what_to_do(
    tmp_path: Path, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(DataError, match=named) as caught:
        synth.synth(tmp_path / "out", **arguments)
    assert caught.value.valid
    assert caught.value.next
    assert not list(tmp_path.iterdir())


def mean_colour(x: Pixels) -> NDArray[np.float64]:
    out: NDArray[np.float64] = x.reshape(len(x), -1, 3).mean(1)
    return out


def texture(x: Pixels) -> NDArray[np.float64]:
    """Log power per spatial frequency in the middle of the grey patch."""
    grey = x[:, 24:72, 24:72].mean(axis=3)
    power = np.log1p(np.abs(np.fft.rfft2(grey - grey.mean((1, 2), keepdims=True))) ** 2)
    frequency = 32 * np.hypot(np.fft.fftfreq(48)[:, None], np.fft.rfftfreq(48))
    return np.stack([power[:, frequency.astype(int) == k].mean(1) for k in range(1, 16)], axis=1)


def test_texture_tells_tumour_but_mean_colour_alone_does_not_tell_much(dataset: Path) -> None:
    auc = {}
    for features in (mean_colour, texture):
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(features(pixels(dataset, "train")), labels(dataset, "train"))
        scores = model.decision_function(features(pixels(dataset, "test")))
        auc[features.__name__] = roc_auc_score(labels(dataset, "test"), scores)
    assert 0.55 < auc["mean_colour"] < 0.85
    assert auc["texture"] > 0.75
