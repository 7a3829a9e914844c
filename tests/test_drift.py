"""Drift: what looks like the training set is quiet, what moved is named, with its direction, and a huge n flags no trifle."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from histoproof.compare import holm
from histoproof.data.store import open_store
from histoproof.drift import EFFECT, drift
from histoproof.drift.moved import compare, least_detectable, stability_index
from histoproof.errors import ConfigError, DataError, OutputError, RunError, SealedError
from histoproof.train import train

from .test_cli import as_json, histoproof

CONFIG = """
data: {store: STORE}
model: {name: mlp, hidden: [8]}
optim: {lr: 0.01}
train: {epochs: 1, batch_size: 64}
evaluate: {bootstrap: 100}
"""


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift")
    (folder / "c.yaml").write_text(CONFIG.replace("STORE", str(store)))
    train(folder / "c.yaml", out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def pixels(store: Path) -> NDArray[np.uint8]:
    return np.asarray(open_store(store).split("valid").images)


def hdf5(path: Path, pixels: NDArray[np.uint8]) -> Path:
    with h5py.File(path, "w") as file:
        file["x"] = pixels
    return path


# The numbers


def test_two_samples_compared_by_hand() -> None:
    found = compare(np.arange(10.0), np.arange(10.0) + 5)
    assert found["ks"] == pytest.approx(0.5)
    assert found["more"] == pytest.approx((5 * 5 + 5 * 5 + 5 * 5 - 12.5 + 0.0) / 100 + 0.25, abs=0.01)
    assert found["reference"]["median"] == 4.5
    assert found["shift"] == pytest.approx(5 / (4.5 / 1.349))
    same = compare(np.arange(50.0), np.arange(50.0))
    assert (same["ks"], same["more"], same["shift"]) == (0, 0.5, 0)
    assert same["psi"] == pytest.approx(0, abs=1e-12)
    assert compare(np.zeros(9), np.ones(4))["shift"] is None


def test_the_stability_index_by_hand() -> None:
    reference = np.repeat(np.arange(10.0), 1000)
    new = np.repeat(np.arange(10.0), [2000, *([1000] * 8), 1])
    p, q = 0.1, 2 / 10.001
    rest = 1 / 10.001
    expected = (q - p) * np.log(q / p) + 8 * (rest - p) * np.log(rest / p) - p * np.log((1.5 / 10001) / p)
    assert stability_index(reference, new) == pytest.approx(expected, rel=0.02)


def test_holm_is_what_holm_wrote() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_distributions_are_significant_as_seldom_as_they_should_be() -> None:
    draw = np.random.default_rng(1)
    p = [compare(draw.normal(size=400), draw.normal(size=150))["p"] for _ in range(400)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.08


def test_the_least_that_can_be_told_shrinks_with_the_patches() -> None:
    few, many = (least_detectable(4096, n, 0.01, 14) for n in (10, 10_000))
    assert many < 0.05
    assert few > 0.5
    assert least_detectable(4096, 1, 0.01, 14) == 1


# The command


def test_valid_is_quiet_and_exits_with_0(run: Path, store: Path) -> None:
    done = histoproof("drift", run, store / "valid", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = as_json(done)
    assert result["drift"] is False
    assert result["leading"] is None
    assert result["verdict"].startswith("no drift")
    assert result["score"]["ks"] == 0  # the same patches, through the same inference
    assert {row["name"] for row in result["factors"]} >= {
        "brightness",
        "haematoxylin",
        "eosin",
        "sharpness",
        "grid_8px",
    }
    assert (run / "factors" / "reference.npz").is_file()


@pytest.mark.parametrize(
    ("how", "leading", "way", "verdict"),
    [
        ("dark", "brightness_p99", "less", "brightness"),
        ("blur", "sharpness", "less", "sharpness"),
        ("pink", "stain_residual", "any", "another scanner or stain"),
    ],
)
def test_what_moved_is_named_with_its_direction(
    run: Path, pixels: NDArray[np.uint8], tmp_path: Path, how: str, leading: str, way: str, verdict: str
) -> None:
    changed = {
        "dark": lambda x: x * 0.8,
        "blur": lambda x: ndimage.gaussian_filter(x, (0, 1.5, 1.5, 0)),
        "pink": lambda x: 255 * (x / 255) ** np.array([0.8, 1.3, 0.7]),
    }[how](pixels.astype(np.float32))
    path = hdf5(tmp_path / "new patches.h5", np.rint(changed).astype(np.uint8))
    result = drift(run, [path], out=tmp_path / "out")
    assert result["drift"]
    assert verdict in result["verdict"]
    row = next(row for row in result["factors"] if row["name"] == leading)
    assert row["flagged"]
    assert way == "any" or (row["more"] < 0.5) == (way == "less")
    family = next(r["family"] for r in result["factors"] if r["name"] == result["leading"])
    assert family == row["family"]
    assert json.loads((tmp_path / "out" / "drift.json").read_text()) == result
    assert (tmp_path / "out" / "figures" / "drift.png").read_bytes().startswith(b"\x89PNG")


def test_drift_exits_with_1_and_says_why(run: Path, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    done = histoproof("drift", run, hdf5(tmp_path / "x.h5", (pixels // 2).astype(np.uint8)))
    assert (done.returncode, done.stderr) == (1, "")
    assert "are darker" in done.stdout
    assert "patches are independent" in done.stdout


def test_a_trifle_is_no_drift_however_many_patches() -> None:
    draw = np.random.default_rng(2)
    found = compare(draw.normal(size=8192), draw.normal(0.1, 1, size=200_000))
    assert found["p"] < 1e-6
    assert found["ks"] < EFFECT


def test_what_is_called_drift_is_the_users_choice(run: Path, store: Path) -> None:
    most = max(row["ks"] for row in drift(run, [store / "valid"])["factors"])
    assert drift(run, [store / "valid"], effect=0.9 * most, alpha=0.999)["drift"]
    assert not drift(run, [store / "valid"], effect=min(1.0, 1.1 * most), alpha=0.999)["drift"]


def test_one_patch_is_too_few_and_says_so(run: Path, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(pixels[0]).save(tmp_path / "one.png")
    result = drift(run, [tmp_path / "one.png"])
    assert not result["drift"]
    assert "1 patches are too few" in result["verdict"]
    assert result["least_detectable"] > 0.9


def test_images_folders_and_hdf5_are_one_to_it(run: Path, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for k in range(30):
        Image.fromarray(pixels[k]).save(tmp_path / "images" / f"{k:02d}.png")
    once = drift(run, [hdf5(tmp_path / "x.h5", pixels[:30])])
    other = drift(run, [tmp_path / "images"])
    parts = drift(run, [hdf5(tmp_path / "a.h5", pixels[:10]), hdf5(tmp_path / "b.h5", pixels[10:30])])
    for result in (other, parts):
        assert [row["ks"] for row in result["factors"]] == [row["ks"] for row in once["factors"]]
        assert result["score"]["ks"] == once["score"]["ks"]


def test_the_sealed_the_trained_on_and_the_whole_store_are_refused(run: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(SealedError):
        drift(run, [store / "test"])
    with pytest.raises(DataError, match="it is the reference"):
        drift(run, [store / "train"])
    with pytest.raises(DataError, match="of several splits"):
        drift(run, [store])
    with pytest.raises(DataError, match="no such file"):
        drift(run, [tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no paths"):
        drift(run, [])
    with pytest.raises(RunError):
        drift(tmp_path, [store / "valid"])
    wrong: list[dict[str, Any]] = [{"alpha": 0.0}, {"alpha": float("nan")}, {"effect": 2.0}]
    for options in wrong:
        with pytest.raises(ConfigError):
            drift(run, [store / "valid"], **options)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        drift(run, [store / "valid"], out=tmp_path / "full")


def test_the_reference_goes_with_the_run_when_the_store_is_gone(
    run: Path, store: Path, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    drift(run, [store / "valid"])
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace(str(store), str(tmp_path / "gone")))
    path = hdf5(tmp_path / "x.h5", pixels)
    assert not drift(moved, [path])["drift"]
    (moved / "factors" / "reference.npz").write_bytes(b"damaged")
    assert not drift(moved, [path], store=store)["drift"]
    assert (moved / "factors" / "reference.npz").stat().st_size > 1000


def test_without_store_and_reference_it_says_what_to_do(
    run: Path, store: Path, pixels: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("factors", "predictions"))
    hidden = tmp_path / "hidden"
    monkeypatch.chdir(tmp_path)
    path = hdf5(tmp_path / "x.h5", pixels)
    with pytest.raises(DataError, match="no such store|is not there"):
        drift(moved, [path], store=hidden)
    result = drift(moved, [path], store=store)
    assert result["score"] is None
    assert any("nothing to be held against" in line for line in result["words"])
