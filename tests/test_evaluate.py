"""Evaluation, prediction and the sealed test split."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from histoproof import ledger
from histoproof.data.pack import pack
from histoproof.data.store import open_store
from histoproof.errors import DataError, HistoproofError, RunError, SealedError
from histoproof.evaluate import evaluate, load_predictions
from histoproof.files import read_json
from histoproof.metrics import score
from histoproof.predict import predict
from histoproof.train import train

CONFIG = """
seed: 3
data: {store: STORE, standardize: train}
model: {name: cnn, widths: [8, 16]}
optim: {name: adamw, lr: 0.01}
train: {epochs: 2, batch_size: 32}
evaluate: {bootstrap: 200, batch_size: 32}
"""


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "c.yaml").write_text(CONFIG.replace("STORE", str(store)))
    train(folder / "c.yaml", out=folder / "run")
    return folder / "run"


@pytest.fixture
def images(store: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for row, pixels in enumerate(open_store(store).split("valid").images[:6]):
        Image.fromarray(pixels).save(folder / f"{row}.png")
    return folder


def test_evaluation_gives_every_score_with_its_interval(run: Path) -> None:
    result = evaluate(run)
    assert (result["split"], result["n"], result["threshold"]) == ("valid", 96, 0.5)
    for name in (
        "auc",
        "accuracy",
        "f1",
        "f2",
        "recall",
        "precision",
        "specificity",
        "average_precision",
        "ece",
        "nll",
    ):
        assert set(result["metrics"][name]) >= {"value", "low", "high"}
    assert read_json(run / "evaluations" / "valid.json")["metrics"] == json.loads(json.dumps(result["metrics"]))


def test_scores_come_from_the_predictions_file(run: Path) -> None:
    result = evaluate(run)
    found = load_predictions(run / "predictions" / "valid.npz")
    again = score(found.label, found.probability)
    assert {k: v["value"] for k, v in result["metrics"].items()} == again
    assert sum(result["confusion"].values()) == result["n"]


def test_groups_are_slides_where_the_store_knows_them(run: Path) -> None:
    assert evaluate(run)["groups"] == {"column": "wsi", "count": 12} or evaluate(run)["groups"]["column"] == "wsi"


def test_evaluating_twice_gives_the_same(run: Path) -> None:
    assert evaluate(run) == evaluate(run)


def test_tta_is_another_score_and_says_so(run: Path) -> None:
    plain, tta = evaluate(run), evaluate(run, tta=True)
    assert (plain["tta"], tta["tta"]) == ("none", "d4")
    assert plain["metrics"]["nll"]["value"] != tta["metrics"]["nll"]["value"]
    evaluate(run)


def test_tta_does_not_see_how_a_patch_was_turned(run: Path, images: Path, tmp_path: Path) -> None:
    with Image.open(images / "0.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png")
    one, two = predict(run, [images / "0.png", tmp_path / "turned.png"], tta=True)
    assert one["tumor_probability"] == pytest.approx(two["tumor_probability"], abs=1e-6)


def test_the_test_split_is_sealed_and_each_opening_is_written_down(run: Path, store: Path) -> None:
    with pytest.raises(SealedError, match="sealed") as error:
        evaluate(run, split="test")
    assert "--open-test" in str(error.value)
    with pytest.raises(SealedError):
        evaluate(run, split="test", open_test="  ")
    assert ledger.openings(store) == []
    evaluate(run, split="test", open_test="a test of the seal")
    evaluate(run, split="test", open_test="another")
    assert [line["reason"] for line in ledger.openings(store)] == ["a test of the seal", "another"]
    path = ledger.path_of(store)
    path.write_text(path.read_text().replace("another", "a n other"))
    with pytest.raises(RunError, match=r"ledger.jsonl:2"):
        evaluate(run, split="test", open_test="third")
    path.unlink()
    ledger.witness_of(store).unlink()


def test_a_split_without_labels_predicts_and_cannot_be_evaluated(
    run: Path, tmp_path: Path, write_split: Callable[..., None], store: Path
) -> None:
    x = open_store(store).split("valid").images[:5]
    write_split(tmp_path / "d", "valid", x)
    pack(tmp_path / "d", tmp_path / "s")
    with pytest.raises(DataError, match="has no labels"):
        evaluate(run, store=tmp_path / "s")
    assert len(predict(run, [tmp_path / "d"])) == 5


def test_a_store_without_the_split_says_which_it_has(
    run: Path, tmp_path: Path, write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "d", "train", np.zeros((4, 96, 96, 3), np.uint8), [0, 1, 0, 1])
    pack(tmp_path / "d", tmp_path / "s")
    with pytest.raises(DataError, match="has no valid split") as error:
        evaluate(run, store=tmp_path / "s")
    assert "it has train" in str(error.value)


def test_evaluating_what_is_no_run_or_unfinished_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        evaluate(tmp_path / "absent")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(RunError, match="has no checkpoints/best.safetensors"):
        evaluate(tmp_path / "half")


def test_predict_agrees_with_evaluation_on_the_same_patches(run: Path, images: Path) -> None:
    evaluate(run)
    found = load_predictions(run / "predictions" / "valid.npz")
    rows = predict(run, [images])
    assert [Path(row["path"]).name for row in rows] == [f"{k}.png" for k in range(6)]
    assert [row["tumor_probability"] for row in rows] == pytest.approx(found.probability[:6].tolist(), abs=1e-6)
    assert all(row["label"] == int(row["tumor_probability"] >= 0.5) and row["index"] is None for row in rows)


def test_a_patchs_probability_does_not_depend_on_its_company(run: Path, images: Path) -> None:
    together = predict(run, [images])
    for row in together:
        assert predict(run, [Path(row["path"])]) == [row]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_predict_reads_hdf5_with_its_rows(run: Path, images: Path, store: Path, tmp_path: Path, dtype: str) -> None:
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["x"] = open_store(store).split("valid").images[:6].astype(dtype)
    rows = predict(run, [tmp_path / "some.h5"])
    assert [row["index"] for row in rows] == list(range(6))
    plain = predict(run, [images])
    assert [r["tumor_probability"] for r in rows] == [r["tumor_probability"] for r in plain]


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "RGBA"), ("tif", "RGB"), ("webp", "RGB"), ("jpg", "RGB"), ("png", "L"), ("png", "P")]
)
def test_predict_reads_the_usual_formats(run: Path, images: Path, tmp_path: Path, suffix: str, mode: str) -> None:
    with Image.open(images / "0.png") as image:
        image.convert(mode).save(tmp_path / f"a.{suffix}", lossless=True)
    (row,) = predict(run, [tmp_path / f"a.{suffix}"])
    if mode in ("RGB", "RGBA") and suffix != "jpg":
        assert row["tumor_probability"] == predict(run, [images / "0.png"])[0]["tumor_probability"]


def test_the_threshold_can_be_chosen(run: Path, images: Path) -> None:
    assert {row["label"] for row in predict(run, [images], threshold=0.0)} == {1}
    assert {row["label"] for row in predict(run, [images], threshold=1.0)} <= {0}


def test_bad_files_are_named(run: Path, tmp_path: Path, images: Path) -> None:
    Image.new("RGB", (100, 96)).save(tmp_path / "wide.png")
    Image.new("I;16", (96, 96)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "cut.png").write_bytes((images / "0.png").read_bytes()[:5000])
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "empty").mkdir()
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["y"] = np.zeros(3)
    with h5py.File(tmp_path / "nan.h5", "w") as file:
        file["x"] = np.full((2, 96, 96, 3), np.nan, dtype=np.float32)
    for name, message in {
        "wide.png": "is 100x96 px",
        "deep.png": "has colour mode I;16",
        "text.png": "is not a readable image",
        "notes.txt": "cannot predict on .txt",
        "cut.png": "is a damaged image",
        "absent.png": "no such file or folder",
        "text.h5": "cannot be read as HDF5",
        "labels.h5": "has no dataset 'x'",
        "nan.h5": "patch 0 holds values that are no whole numbers",
        "empty": "holds no images",
    }.items():
        with pytest.raises(HistoproofError) as error:
            predict(run, [images / "0.png", tmp_path / name])
        assert message in str(error.value), name
        assert name in str(error.value)


def test_a_damaged_predictions_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="no readable predictions file"):
        load_predictions(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", index=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="no readable predictions file"):
        load_predictions(tmp_path / "b.npz")


def test_groups_from_a_csv_are_checked(run: Path, store: Path, tmp_path: Path) -> None:
    from histoproof.config import GroupsConfig
    from histoproof.data.groups import group_labels

    opened = open_store(store)
    (tmp_path / "valid.csv").write_text("site\n" + "\n".join(f"s{k % 5}" for k in range(96)) + "\n")
    found = group_labels(opened, "valid", GroupsConfig(column="site", csv=str(tmp_path / "{split}.csv")))
    assert found is not None
    assert found[:6].tolist() == ["s0", "s1", "s2", "s3", "s4", "s0"]
    for config, message in (
        (GroupsConfig(column="slide", csv=str(tmp_path / "{split}.csv")), "has no column 'slide'"),
        (GroupsConfig(column="site", csv=str(tmp_path / "absent.csv")), "no such groups file"),
    ):
        with pytest.raises(DataError, match=message):
            group_labels(opened, "valid", config)
    (tmp_path / "valid.csv").write_text("site\na\n")
    with pytest.raises(DataError, match="has 1 rows, the valid split has 96 patches"):
        group_labels(opened, "valid", GroupsConfig(column="site", csv=str(tmp_path / "{split}.csv")))
