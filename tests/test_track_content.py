"""What is copied to a tracker, and what is refused in words, where neither MLflow nor TensorBoard is installed."""

import hashlib
import importlib.util
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histoproof.errors import ConfigError, DataError, OutputError
from histoproof.files import JsonLines
from histoproof.runs import Run
from histoproof.track import To, content, track
from histoproof.track.live import Live
from histoproof.track.mlflow import check_uri, default_uri, without_password
from histoproof.train import train

CONFIG = """
data: {store: STORE}
model: {name: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 64}
evaluate: {bootstrap: 100}
"""


@pytest.fixture(scope="module")
def finished(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("content")
    (folder / "c.yaml").write_text(CONFIG.replace("STORE", str(store)))
    train(folder / "c.yaml", out=folder / "run")
    return folder / "run"


def lines(run: Path, steps: int) -> bytes:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").unlink(missing_ok=True)
    file = JsonLines(run / "metrics.jsonl")
    for step in range(steps):
        file.append({"kind": "step", "step": step, "loss": step / 3, "grad_norm": None if step % 5 == 4 else 0.5})
        if step % 4 == 3:
            file.append({"kind": "epoch", "step": step + 1, "epoch": 1, "valid": {"auc": None, "loss": 0.1 * step}})
    file.close()
    return (run / "metrics.jsonl").read_bytes()


@given(st.integers(0, 30), st.integers(1, 9), st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_from_anywhere_are_the_rest_of_the_file(
    tmp_path: Path, steps: int, most: int, data: st.DataObject
) -> None:
    """However it is cut, and wherever a piece begins: every point once, in order, and digests of the file so far."""
    text = lines(tmp_path / "run", steps)
    run = Run(tmp_path / "run")
    ends = [0, *(at + 1 for at, byte in enumerate(text) if byte == 10)]
    start = data.draw(st.sampled_from(ends))
    found = list(content.pieces(run, start, most))
    whole = [point for piece in content.pieces(run, 0, 10**9) for point in piece.points]
    skipped = sum(len(piece.points) for piece in content.pieces(run, 0, 1) if piece.stop <= start)
    got = [point for piece in found for point in piece.points]
    assert repr(got) == repr(whole[skipped:])  # repr: NaN is not equal to itself
    assert [piece.start for piece in found] == [start, *(piece.stop for piece in found)][: len(found)]
    for piece in found:
        assert piece.sha256 == hashlib.sha256(text[: piece.stop]).hexdigest() == content.prefix_sha256(run, piece.stop)
        assert len(piece.points) <= most or text[piece.start : piece.stop].count(b"\n") == 1
    assert (found[-1].stop if found else start) == len(text)


def test_a_null_is_nan_and_a_torn_line_waits(tmp_path: Path) -> None:
    whole = lines(tmp_path / "run", 5)
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind":"step","st')
    (piece,) = content.pieces(Run(tmp_path / "run"), 0, 1000)
    assert piece.stop == len(whole)
    points = {(point.key, point.step): point.value for point in piece.points}
    assert math.isnan(points["step/grad_norm", 4])
    assert points["step/loss", 4] == 4 / 3
    assert math.isnan(points["epoch/valid/auc", 4])
    assert points["epoch/epoch", 4] == 1
    assert content.prefix_sha256(Run(tmp_path / "run"), 10**6) is None


def test_a_line_that_is_no_metric_is_named(tmp_path: Path) -> None:
    lines(tmp_path / "run", 2)
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(b"[1]\n")
    with pytest.raises(DataError, match="no metric"):
        list(content.pieces(Run(tmp_path / "run"), 0, 1000))


def test_a_run_has_one_key_wherever_it_is_moved_and_its_twin_another(finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(finished, moved)
    assert content.key_of(Run(moved)) == content.key_of(Run(finished))
    twin = tmp_path / "twin"
    train(finished / "config.yaml", out=twin)
    assert content.key_of(Run(twin)) != content.key_of(Run(finished))
    (moved / "environment.json").unlink()
    with pytest.raises(DataError, match=r"environment\.json"):
        content.key_of(Run(moved))


def test_files_are_everything_but_locks_and_what_only_a_resume_needs(finished: Path) -> None:
    found = content.files(Run(finished))
    assert {"config.yaml", "checkpoints/best.safetensors", "predictions/valid.npz", "trail.jsonl"} <= set(found)
    assert not [name for name in found if "last" in name or "previous" in name or name.startswith(".")]
    assert (finished / ".lock").exists()


@pytest.mark.parametrize("uri", ["mlruns", "/data/mlruns", "file:///data/mlruns", "./mlruns"])
def test_the_file_store_is_refused_with_the_database_beside_it(uri: str) -> None:
    with pytest.raises(ConfigError, match="file store") as refused:
        check_uri(uri)
    assert "sqlite:////" in str(refused.value.next)
    assert str(refused.value.next).endswith("mlruns/mlflow.db")


def test_uris(monkeypatch: pytest.MonkeyPatch) -> None:
    for good in ("sqlite:///a.db", "http://h:5000", "https://h", "postgresql+psycopg2://u@h/d", "databricks", None):
        check_uri(good)
    with pytest.raises(ConfigError, match="ftp"):
        check_uri("ftp://host")
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert without_password("http://host:5000/a@b") == "http://host:5000/a@b"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(None, Path("/data/runs")) == "sqlite:////data/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert default_uri(None, Path("/data/runs")) == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(ConfigError, match="file store"):
        check_uri(None)


@pytest.mark.parametrize("to", ["mlflow", "tensorboard"])
def test_without_the_tracker_installed_it_says_how_to_install_it(
    to: To, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (lambda: track([finished], to=to), lambda: Live(to)):
        with pytest.raises(OutputError, match="not installed") as missing:
            use()
        assert missing.value.next == f"pip install 'histoproof[{to}]'"


def test_train_refuses_before_it_makes_a_folder(finished: Path, tmp_path: Path) -> None:
    config = finished.parent / "c.yaml"
    for wrong in (
        ["--track", "mlflow", "--track-uri", "mlruns"],
        ["--track", "mlflow", "--track-uri", "postgresql://me:secret@host/db"],
        ["--track-uri", "http://host"],
    ):
        command = [sys.executable, "-m", "histoproof", "train", str(config), "--out", str(tmp_path / "run"), *wrong]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
        assert "secret" not in done.stderr
    assert not (tmp_path / "run").exists()
