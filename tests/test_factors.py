"""Factors are what their formulas say, of a patch alone, whatever else is measured with it."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from histoproof.config import GroupsConfig
from histoproof.data.pack import pack
from histoproof.data.store import open_store
from histoproof.errors import DataError
from histoproof.factors import FACTORS, columns_of, distances, factor_table, measure, parse_column, write_table
from histoproof.factors.known import MEASURED
from histoproof.factors.reference import MOST, load_or_measure, measure_rows, stored
from histoproof.factors.stain import EOSIN, HAEMATOXYLIN, optical_density, unmix


def factor(block: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    return measure(block)[0][:, [f.name for f in MEASURED].index(name)]


@pytest.fixture(scope="module")
def patches(store: Path) -> NDArray[np.uint8]:
    return np.asarray(open_store(store).split("valid").images)[:48]


def test_a_stain_alone_is_found_alone_and_a_mixture_is_taken_apart() -> None:
    h, e = (np.array(s) / np.linalg.norm(s) for s in (HAEMATOXYLIN, EOSIN))
    amounts = unmix((np.outer(h, [1.0, 0.0, 0.7]) + np.outer(e, [0.0, 2.0, 0.4])).astype(np.float32))
    assert amounts == pytest.approx(np.array([[1, 0, 0.7], [0, 2, 0.4], [0, 0, 0]]), abs=1e-5)


def test_optical_density_is_zero_at_white_and_rises_with_darkness() -> None:
    density = optical_density(np.arange(256, dtype=np.uint8))
    assert density[255] == 0
    assert (np.diff(density) < 0).all()


def test_brightness_contrast_and_saturation_by_hand() -> None:
    half = np.full((1, 96, 96, 3), 255, dtype=np.uint8)
    half[:, :48] = (255, 0, 0)
    luma = (1 + 0.299) / 2
    assert factor(half, "brightness")[0] == pytest.approx(luma, abs=1e-5)
    assert factor(half, "contrast")[0] == pytest.approx((1 - 0.299) / 2, abs=1e-5)
    assert factor(half, "saturation")[0] == pytest.approx(0.5)
    assert factor(half, "tissue")[0] == pytest.approx(0.5)
    assert factor(half, "brightness_p99")[0] == 1


def test_a_darker_lamp_moves_brightness_and_no_stain(patches: NDArray[np.uint8]) -> None:
    dark = np.rint(patches * 0.8).astype(np.uint8)
    assert factor(dark, "brightness") == pytest.approx(0.8 * factor(patches, "brightness"), abs=0.003)
    for name in ("haematoxylin", "eosin"):
        assert factor(dark, name) == pytest.approx(factor(patches, name), abs=0.03)
    for name in ("saturation", "sharpness"):
        assert factor(dark, name) == pytest.approx(factor(patches, name), abs=0.05)


def test_blur_lowers_sharpness_and_jpeg_leaves_a_grid(patches: NDArray[np.uint8]) -> None:
    blurred = np.rint(ndimage.gaussian_filter(patches.astype(np.float32), (0, 1.5, 1.5, 0))).astype(np.uint8)
    assert (factor(blurred, "sharpness") < factor(patches, "sharpness") - 0.3).mean() > 0.9
    squeezed = np.stack([_jpeg(patch, 20) for patch in blurred])
    assert (factor(squeezed, "grid_8px") > 2 * factor(blurred, "grid_8px")).mean() > 0.9


def test_dark_blue_discs_are_counted_as_nuclei() -> None:
    y, x = np.mgrid[:96, :96]
    patch = np.full((96, 96, 3), (230, 200, 220), dtype=np.uint8)
    for cy in (16, 48, 80):
        for cx in (16, 48, 80):
            patch[(y - cy) ** 2 + (x - cx) ** 2 < 25] = (90, 60, 140)
    assert factor(patch[None], "nuclei")[0] * 9.216 == pytest.approx(9)
    assert factor(np.full((1, 96, 96, 3), 200, np.uint8), "nuclei")[0] == 0


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_every_factor_of_any_patch_is_finite_and_in_its_range(low: int, high: int, seed: int) -> None:
    low, high = min(low, high), max(low, high)
    block = np.random.default_rng(seed).integers(low, high + 1, (1, 96, 96, 3)).astype(np.uint8)
    values, histogram = measure(block)
    assert np.isfinite(values).all()
    assert histogram.sum() == pytest.approx(1, abs=1e-5)
    for f, value in zip(MEASURED, values[0], strict=True):
        assert f.low - 1e-4 <= value <= f.high + 1e-4, f.name


def test_a_patch_is_measured_the_same_alone_as_in_company(patches: NDArray[np.uint8]) -> None:
    together, histograms = measure(patches)
    for k in (0, 17, 47):
        alone, histogram = measure(patches[k : k + 1])
        assert (alone[0] == together[k]).all()
        assert (histogram[0] == histograms[k]).all()


def test_measuring_in_blocks_is_measuring_at_once(store: Path) -> None:
    train = open_store(store).split("train")
    rows = np.array([3, 250, 9, 77, 9], dtype=np.int64)
    found = np.concatenate([values for values, _ in measure_rows(train, rows)])
    assert (found == measure(np.asarray(train.images[rows]))[0]).all()


def test_the_nearest_patch_is_never_the_patch_itself() -> None:
    roots = np.sqrt(np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]], dtype=np.float32))
    assert distances(roots, roots) == pytest.approx(np.zeros(3), abs=1e-3)
    own = distances(roots, roots, itself=True)
    assert own == pytest.approx(np.full(3, np.sqrt(1 - np.sqrt(0.5))), abs=1e-5)
    assert distances(roots[:1], roots[:1], itself=True)[0] == 1
    assert distances(roots[:1], roots[1:2])[0] == 1


def test_a_reference_is_kept_and_used_only_for_the_patches_it_is_of(store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    train = opened.split("train")
    rows, cache = train.rows("exclude"), tmp_path / "reference.npz"
    first = load_or_measure(opened, train, rows, cache)
    assert len(first.values) == min(len(rows), MOST)
    assert first.values.shape[1] == len(FACTORS)
    stored(first, cache)
    again = load_or_measure(opened, train, rows, cache)
    assert (again.values == first.values).all()
    assert again.sha256 == first.sha256
    fewer = load_or_measure(opened, train, rows[:-1], cache)
    assert len(fewer.values) == len(rows) - 1
    assert fewer.sha256 != first.sha256
    cache.write_bytes(cache.read_bytes()[:100])
    assert (load_or_measure(opened, train, rows, cache).values == first.values).all()


def test_a_table_is_written_for_programs_and_for_people(store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    train, valid = opened.split("train"), opened.split("valid")
    reference = load_or_measure(opened, train, train.rows("exclude"), tmp_path / "none.npz")
    rows = valid.rows("exclude")[:20]
    table = factor_table(opened, valid, rows, reference, tmp_path / "valid.npz")
    write_table(table, tmp_path / "valid.npz")
    with np.load(tmp_path / "valid.npz", allow_pickle=False) as file:
        assert file["names"].tolist() == [f.name for f in FACTORS]
        assert (file["index"] == rows).all()
    with (tmp_path / "valid.csv").open() as text:
        lines = list(csv.DictReader(text))
    assert [int(line["index"]) for line in lines] == rows.tolist()
    assert float(lines[3]["brightness"]) == pytest.approx(float(table.column("brightness")[3]), rel=1e-5)
    calls: list[int] = []
    kept = factor_table(opened, valid, rows, reference, tmp_path / "valid.npz", progress=lambda *a: calls.append(a[0]))
    assert (kept.values == table.values).all()
    assert not calls


def test_columns_that_are_the_label_or_a_place_are_no_factors(
    tmp_path: Path, write_split: Callable[..., None], patches: NDArray[np.uint8]
) -> None:
    write_split(tmp_path / "d", "valid", patches, np.arange(len(patches)) % 2)
    lines = [f"{k},1,{k % 2 == 1},{k % 2 == 1},slide{k % 3}" for k in range(len(patches))]
    header = "coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
    (tmp_path / "d" / "camelyonpatch_level_2_split_valid_meta.csv").write_text("\n".join([header, *lines]) + "\n")
    pack(tmp_path / "d", tmp_path / "s")
    opened = open_store(tmp_path / "s")
    found = columns_of(opened, opened.split("valid"), [])
    assert set(found) == {"wsi"}
    assert found["wsi"][:3].tolist() == ["slide0", "slide1", "slide2"]


@pytest.mark.parametrize("text", ["", ":", "site", "a.csv", "a.csv:", ":site", "missing.csv:site"])
def test_a_column_that_is_not_there_is_answered_with_what_is(store: Path, text: str) -> None:
    opened = open_store(store)
    with pytest.raises(DataError):
        columns_of(opened, opened.split("valid"), [text])


def test_a_path_with_a_colon_still_names_its_column(store: Path) -> None:
    assert parse_column(open_store(store), "a:b.csv:site") == GroupsConfig(column="site", csv="a:b.csv")


def _jpeg(patch: NDArray[np.uint8], quality: int) -> Any:
    content = io.BytesIO()
    Image.fromarray(patch).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))
