"""On real patches: a planted slice comes first, permuted errors flag nothing, and each kind of drift is told from the others."""

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from histoproof import rng
from histoproof.data.pack import pack
from histoproof.data.pcam import official_name
from histoproof.data.store import open_store
from histoproof.drift import drift
from histoproof.evaluate import predict_split, save_evaluation, score_predictions
from histoproof.inference import load_model, predict_workers
from histoproof.runs import open_run
from histoproof.slices import slices
from histoproof.slices.cut import Column, cut
from histoproof.slices.family import judge
from histoproof.slices.trees import halves, tree_slices
from histoproof.train import train

from .conftest import REPOSITORY

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(real_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("champion") / "run"
    config = REPOSITORY / "configs" / "champion.yaml"
    train(config, [f"data.store={real_store}", "train.epochs=4", "evaluate.bootstrap=200"], out=folder)
    return folder


@pytest.fixture(scope="module")
def pixels(real_store: Path) -> NDArray[np.uint8]:
    return np.asarray(open_store(real_store).split("valid").images)


def column(real_data: Path, name: str) -> NDArray[np.str_]:
    with (real_data / "pcam-real" / "valid_provenance.csv").open() as file:
        return np.array([row[name] for row in csv.DictReader(file)])


def test_a_planted_slice_is_ranked_first_and_its_interval_excludes_the_whole(
    run: Path, real_data: Path, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    """The largest stain cluster's patches darkened and 30 % of its labels flipped, in a copy of valid."""
    source = tmp_path / "official"
    source.mkdir()
    for name in (official_name("train", "x.h5"), official_name("train", "y.h5")):
        shutil.copyfile(real_data / "pcam-real" / name, source / name)
    clusters = column(real_data, "stain_cluster_k40")
    names, sizes = np.unique(clusters, return_counts=True)
    cluster = names[np.argmax(sizes)]
    members = clusters == cluster
    rows = np.flatnonzero(members)
    flipped = rows[rng.permutation(rng.key(1, "plant"), len(rows))[: round(0.3 * len(rows))]]
    dark = pixels.copy()
    dark[members] = np.rint(dark[members] * 0.8).astype(np.uint8)
    with h5py.File(real_data / "pcam-real" / official_name("valid", "y.h5")) as file:
        labels = file["y"][:]
    labels[flipped] ^= 1
    with h5py.File(source / official_name("valid", "x.h5"), "w") as file:
        file["x"] = dark
    with h5py.File(source / official_name("valid", "y.h5"), "w") as file:
        file["y"] = labels
    pack(source, tmp_path / "store")
    shutil.copytree(run, tmp_path / "run")
    store, model = open_store(tmp_path / "store"), load_model(tmp_path / "run")
    valid, workers = store.split("valid"), predict_workers(model)
    found = predict_split(model, valid, valid.rows("exclude"), workers)
    workers.close()
    save_evaluation(
        open_run(tmp_path / "run"), found, score_predictions(found, model.config, store, valid, model=model)
    )

    csv_column = f"{real_data}/pcam-real/{{split}}_provenance.csv:stain_cluster_k40"
    result = slices(tmp_path / "run", store=tmp_path / "store", groups=[csv_column])
    first = result["slices"][0]
    assert first["rule"] == f"stain_cluster_k40 = {cluster}"
    assert first["flagged"]
    for score, whole in (("accuracy", "accuracy"), ("cross_auc", "auc")):
        assert first["scores"][score]["high"] < result["whole"][whole]["value"]


def test_permuted_errors_flag_nothing_in_95_of_100_copies(run: Path, real_data: Path, tmp_path: Path) -> None:
    result = slices(run, out=tmp_path / "out", gallery=0)
    with np.load(result["factors_file"]) as file:
        columns = {str(n): Column(str(n), file["values"][:, k].astype(float)) for k, n in enumerate(file["names"])}
        index = file["index"]
    for name in ("stain_cluster_k40", "stain_domain_k2"):
        columns[name] = Column(name, column(real_data, name)[index])
    with np.load(run / "predictions" / "valid.npz") as file:
        probability, label = file["probability"], file["label"]
    n, flagged = len(label), 0
    for copy in range(100):
        order = rng.permutation(rng.key(7, "copy", copy), n)
        p, y = probability[order], label[order]
        second = halves(np.arange(n), copy)
        wrong = ((p >= 0.5) != (y == 1)).astype(float)
        every = cut(columns, least=20, pairs=True) + tree_slices(columns, y, wrong, second, least=20)
        tested = judge(every, y, p, threshold=0.5, second=second, units=None, permutations=300, seed=copy)
        flagged += bool(np.nanmin(tested.p_corrected) < 0.05)
    assert flagged <= 5


def test_valid_is_quiet_against_train(run: Path, real_store: Path) -> None:
    result = drift(run, [real_store / "valid"])
    assert not result["drift"]
    assert max(row["ks"] for row in result["factors"]) < 0.1


@pytest.mark.parametrize(
    ("how", "leading", "family", "also"),
    [
        ("domain", "stain_residual", "stain", "eosin"),
        ("dark", "brightness_p99", "light", "brightness"),
        ("blur", "sharpness", "focus", "sharpness"),
        ("jpeg", "grid_8px", "compression", "grid_8px"),
    ],
)
def test_each_drift_is_flagged_with_the_right_factor_named(
    run: Path,
    real_data: Path,
    pixels: NDArray[np.uint8],
    tmp_path: Path,
    how: str,
    leading: str,
    family: str,
    also: str,
) -> None:
    changes: dict[str, Callable[[], NDArray[np.uint8]]] = {
        "domain": lambda: pixels[column(real_data, "stain_domain_k2") == "0"],
        "dark": lambda: np.rint(pixels * 0.8).astype(np.uint8),
        "blur": lambda: np.rint(ndimage.gaussian_filter(pixels.astype(np.float32), (0, 1.5, 1.5, 0))).astype(np.uint8),
        "jpeg": lambda: np.stack([_jpeg(patch) for patch in pixels]),
    }
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file["x"] = changes[how]()
    result = drift(run, [tmp_path / "new.h5"])
    assert result["leading"] == leading
    rows = {row["name"]: row for row in result["factors"]}
    assert rows[leading]["family"] == family
    assert rows[also]["flagged"]
    if how == "dark":  # a darker lamp is no other stain
        assert not any(row["flagged"] for row in rows.values() if row["family"] in ("stain", "focus", "compression"))
    if how == "domain":
        assert "another scanner or stain" in result["verdict"]


def test_the_other_stain_domain_alone_is_noticed_whichever_it_is(
    run: Path, real_data: Path, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file["x"] = pixels[column(real_data, "stain_domain_k2") == "1"]
    result = drift(run, [tmp_path / "new.h5"])
    assert result["leading"] == "stain_residual"


def _jpeg(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    content = io.BytesIO()
    Image.fromarray(patch).save(content, "JPEG", quality=40)
    return np.asarray(Image.open(content))
