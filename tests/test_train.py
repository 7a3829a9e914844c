"""Training: the same inputs give the same bits, however often it was killed; what goes wrong is told, and nothing looks whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from histoproof import checkpoint
from histoproof.data.pack import pack
from histoproof.errors import ConfigError, DataError, HistoproofError, OutputError, RunError
from histoproof.files import read_json, read_lines
from histoproof.runs import Run, locked, trail_end
from histoproof.train import resume, train

CNN = """
seed: 3
data: {store: STORE, sampling: balanced, standardize: train}
model: {name: cnn, widths: [4, 8], dropout: 0.2}
augment: {d4: true, brightness: 0.1, channel: 0.05}
optim: {name: adamw, lr: 0.003, weight_decay: 0.05}
schedule: {name: plateau, patience: 0}
train: {epochs: 3, batch_size: 48, weights_digest_every_steps: 4, PRECISION}
evaluate: {bootstrap: 100}
"""
MLP = """
seed: 3
data: {store: STORE, sampling: balanced}
model: {name: mlp, hidden: [8], dropout: 0.3}
optim: {name: sgd, lr: 0.01, momentum: 0.9}
schedule: {name: onecycle}
train: {epochs: 3, batch_size: 48}
evaluate: {bootstrap: 100}
"""


def config(tmp_path: Path, store: Path, text: str = CNN, precision: str = "fp32") -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(text.replace("STORE", str(store)).replace("PRECISION", f"precision: {precision}"))
    return path


def digests(result: dict[str, Any]) -> tuple[str, str]:
    return result["weights_sha256"], result["trail_sha256"]


def evidence(run: Path) -> tuple[bytes, bytes]:
    return (run / "metrics.jsonl").read_bytes(), (run / "trail.jsonl").read_bytes()


@pytest.mark.parametrize(("text", "precision"), [(CNN, "fp32"), (CNN, "bf16"), (MLP, "fp32")])
def test_the_same_command_twice_gives_the_same_bits(tmp_path: Path, store: Path, text: str, precision: str) -> None:
    path = config(tmp_path, store, text, precision)
    one, two = train(path, out=tmp_path / "a"), train(path, out=tmp_path / "b")
    assert digests(one) == digests(two)
    assert evidence(tmp_path / "a") == evidence(tmp_path / "b")


@pytest.mark.parametrize(
    "override",
    [
        "train.workers=1",
        "train.workers=3",
        "data.prefetch=0",
        "data.residency=disk",
        "data.residency=ram",
        "train.checkpoint_every_steps=2",
    ],
)
def test_how_the_work_is_done_changes_no_bit(tmp_path: Path, store: Path, override: str) -> None:
    path = config(tmp_path, store)
    one, two = train(path, out=tmp_path / "a"), train(path, [override], out=tmp_path / "b")
    assert digests(one) == digests(two)
    assert evidence(tmp_path / "a") == evidence(tmp_path / "b")


@pytest.mark.parametrize(
    "override", ["seed=4", "optim.lr=0.002", "augment.d4=false", "model.dropout=0.1", "train.shards=2"]
)
def test_what_is_an_input_changes_the_trail(tmp_path: Path, store: Path, override: str) -> None:
    path = config(tmp_path, store)
    one, two = train(path, out=tmp_path / "a"), train(path, [override], out=tmp_path / "b")
    assert one["trail_sha256"] != two["trail_sha256"]
    assert one["weights_sha256"] != two["weights_sha256"]


def test_a_run_folder_holds_what_the_contract_says(tmp_path: Path, store: Path) -> None:
    result = train(config(tmp_path, store), out=tmp_path / "run")
    run = Run(tmp_path / "run")
    assert {"run", "epochs", "steps", "best", "weights_sha256", "trail_sha256"} <= set(result)
    assert result["best"]["valid"]["auc"] is not None
    assert (
        result["best"]["intervals"]["auc"]["low"]
        <= result["best"]["valid"]["auc"]
        <= result["best"]["intervals"]["auc"]["high"]
    )
    lines = read_lines(run.metrics)
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(18))
    assert all({"loss", "grad_norm", "lr", "epoch"} <= set(line) for line in steps)
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2, 3]
    trail = read_lines(run.trail)
    assert float.fromhex(trail[1]["loss"]) == steps[0]["loss"]
    assert [line["step"] for line in trail if "weights_sha256" in line] == [3, 5, 7, 11, 15, 17]
    assert trail_end(run.trail) == result["trail_sha256"] == trail[-1]["chain"]
    assert checkpoint.read(run.checkpoints / "last.safetensors").part("model")
    with np.load(run.predictions("valid"), allow_pickle=False) as file:
        assert set(file) == {"index", "logit", "label", "probability"}
    assert read_json(run.environment)["packages"]["torch"]
    assert run.load_summary() == json.loads(json.dumps(result))


def test_the_last_weights_are_those_of_the_digest(tmp_path: Path, store: Path) -> None:
    result = train(config(tmp_path, store), out=tmp_path / "run")
    tensors = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    assert checkpoint.tensors_sha256(weights) == result["weights_sha256"]


@pytest.mark.parametrize(("text", "precision"), [(CNN, "fp32"), (CNN, "bf16"), (MLP, "fp32")])
def test_stopped_at_any_step_and_resumed_on_another_number_of_workers_it_ends_in_the_same_bits(
    tmp_path: Path, store: Path, text: str, precision: str
) -> None:
    path = config(tmp_path, store, text, precision)
    whole = train(path, out=tmp_path / "whole")
    for stop_at in (1, 6, 10):
        out = tmp_path / f"stopped-{stop_at}"
        stopped = train(path, ["train.workers=2"], out=out, progress=_terminate_at(stop_at))
        assert (stopped["status"], stopped["steps"], stopped["signal"]) == ("stopped", stop_at, "SIGTERM")
        assert not (out / "summary.json").exists()
        text_now = (out / "config.yaml").read_text()
        (out / "config.yaml").write_text(text_now.replace("workers: 2", "workers: 1"))
        assert digests(resume(out)) == digests(whole)
        assert evidence(out) == evidence(tmp_path / "whole")


def test_killed_without_warning_it_goes_on_from_its_last_checkpoint(tmp_path: Path, store: Path) -> None:
    path = config(tmp_path, store)
    whole = train(path, ["train.checkpoint_every_steps=1"], out=tmp_path / "whole")
    out = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "histoproof",
        "train",
        str(path),
        "--out",
        str(out),
        "--set",
        "train.checkpoint_every_steps=1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(read_lines(out / "trail.jsonl") if out.exists() else []) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind":"step","ste')  # as if killed within a line
    assert digests(resume(out)) == digests(whole)
    assert evidence(out) == evidence(tmp_path / "whole")


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path, store: Path) -> None:
    path = config(tmp_path, store)
    whole = train(path, out=tmp_path / "whole")
    out = tmp_path / "run"
    train(path, ["train.checkpoint_every_steps=2"], out=out, progress=_terminate_at(9))
    last = out / "checkpoints" / "last.safetensors"
    content = bytearray(last.read_bytes())
    content[-100] ^= 1
    last.write_bytes(content)
    assert digests(resume(out)) == digests(whole)
    warnings = [line["text"] for line in read_lines(out / "events.jsonl") if line["event"] == "warning"]
    assert len(warnings) == 1
    assert "going on from the one before" in warnings[0]


def test_a_finished_run_is_not_trained_again(tmp_path: Path, store: Path) -> None:
    result = train(config(tmp_path, store), out=tmp_path / "run")
    before = evidence(tmp_path / "run")
    assert resume(tmp_path / "run")["weights_sha256"] == result["weights_sha256"]
    assert evidence(tmp_path / "run") == before


def test_a_run_is_never_overwritten_and_the_default_name_is_free(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, store, MLP)
    monkeypatch.chdir(tmp_path)
    assert train(path, ["train.epochs=1"])["run"] == "runs/experiment-001"
    assert train(path, ["train.epochs=1"])["run"] == "runs/experiment-002"
    with pytest.raises(OutputError, match="no run is ever overwritten"):
        train(path, out=Path("runs/experiment-001"))


def test_a_mistake_leaves_no_run_folder(tmp_path: Path, store: Path) -> None:
    cases: list[tuple[list[str], type[HistoproofError], str]] = [
        (["train.batch_size=257"], ConfigError, "larger than the train split's 256 usable patches"),
        (["data.store=/nonexistent"], DataError, "no such store"),
        (["train.device=cuda"], ConfigError, "train.device = cuda"),
        (["optim.lr=0"], ConfigError, "optim.lr = 0"),
    ]
    for overrides, kind, message in cases:
        with pytest.raises(kind) as error:
            train(config(tmp_path, store), overrides, out=tmp_path / "run")
        assert message in str(error.value)
        assert not (tmp_path / "run").exists()


def test_a_run_at_chance_level_says_so(tmp_path: Path, write_split: Callable[..., None]) -> None:
    result = train_on_noise(tmp_path, write_split)
    assert "at chance level" in result["warnings"][0]


def train_on_noise(tmp_path: Path, write_split: Callable[..., None]) -> dict[str, Any]:
    """A run that can have learned nothing: pixels and labels have nothing to do with each other."""
    x = np.random.Generator(np.random.Philox(1)).integers(0, 256, (140, 96, 96, 3), dtype=np.uint8)
    write_split(tmp_path / "d", "train", x[:40], np.arange(40) % 2)
    write_split(tmp_path / "d", "valid", x[40:], np.arange(100) % 2)
    pack(tmp_path / "d", tmp_path / "s")
    return train(config(tmp_path, tmp_path / "s", MLP), ["train.batch_size=8", "train.epochs=1"], out=tmp_path / "run")


def test_one_class_only_trains_and_says_that_auc_is_undefined(tmp_path: Path, write_split: Callable[..., None]) -> None:
    x = np.random.Generator(np.random.Philox(1)).integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
    write_split(tmp_path / "d", "train", x, np.ones(40))
    write_split(tmp_path / "d", "valid", x[:20], np.ones(20))
    pack(tmp_path / "d", tmp_path / "s")
    overrides = ["data.sampling=natural", "train.epochs=2", "train.batch_size=8"]
    result = train(config(tmp_path, tmp_path / "s", MLP), overrides, out=tmp_path / "run")
    assert result["best"]["valid"]["auc"] is None
    assert result["best"]["intervals"]["auc"] == {
        "value": None,
        "low": None,
        "high": None,
        "why": result["best"]["intervals"]["auc"]["why"],
    }
    assert "every usable train patch has label 1" in result["warnings"][0]
    assert "undefined" in result["warnings"][1]


def test_quarantined_patches_are_trained_on_only_when_asked(tmp_path: Path, write_split: Callable[..., None]) -> None:
    x = np.random.Generator(np.random.Philox(1)).integers(0, 256, (60, 96, 96, 3)).astype(np.float32)
    x[7] = np.nan
    write_split(tmp_path / "d", "train", x[:40], np.arange(40) % 2)
    write_split(tmp_path / "d", "valid", x[40:], np.arange(20) % 2)
    pack(tmp_path / "d", tmp_path / "s")
    path = config(tmp_path, tmp_path / "s", MLP)
    overrides = ["train.epochs=1", "train.batch_size=1", "data.sampling=natural"]
    assert train(path, overrides, out=tmp_path / "without")["steps"] == 39
    assert train(path, [*overrides, "data.quarantine=include"], out=tmp_path / "with")["steps"] == 40


def test_a_store_changed_after_packing_is_refused(tmp_path: Path, write_split: Callable[..., None]) -> None:
    x = np.random.Generator(np.random.Philox(2)).integers(0, 256, (80, 96, 96, 3), dtype=np.uint8)
    write_split(tmp_path / "d", "train", x[:40], np.arange(40) % 2)
    write_split(tmp_path / "d", "valid", x[40:], np.arange(40) % 2)
    pack(tmp_path / "d", tmp_path / "s")
    images = np.load(tmp_path / "s" / "train" / "images.npy", mmap_mode="r+")
    images[5, 0, 0, 0] ^= 1
    images.flush()
    with pytest.raises(DataError, match="not what the manifest says: it differs within patches 0 to 39"):
        train(config(tmp_path, tmp_path / "s", MLP), ["train.batch_size=8"], out=tmp_path / "run")


def test_a_diverging_run_stops_with_advice(tmp_path: Path, store: Path) -> None:
    overrides = ["optim.lr=10", "optim.weight_decay=10", "optim.max_grad_norm=null", "train.epochs=30"]
    with pytest.raises(RunError, match="training diverged") as error:
        train(config(tmp_path, store, MLP.replace("onecycle", "constant")), overrides, out=tmp_path / "run")
    assert "lower optim.lr" in str(error.value)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_disk_that_fills_up_is_told_and_the_run_does_not_look_whole(
    tmp_path: Path, store: Path, mounted: Callable[[str], Path]
) -> None:
    out = mounted("size=2m") / "run"
    with pytest.raises(OutputError, match="No space left"):
        train(config(tmp_path, store, MLP), out=out)
    assert not (out / "summary.json").exists()
    assert not list(out.rglob("*.tmp"))


def test_a_read_only_place_is_told(tmp_path: Path, store: Path, mounted: Callable[[str], Path]) -> None:
    with pytest.raises(OutputError, match="Read-only file system"):
        train(config(tmp_path, store, MLP), out=mounted("ro") / "run")


def test_two_processes_cannot_write_one_run(tmp_path: Path, store: Path) -> None:
    train(config(tmp_path, store, MLP), out=tmp_path / "run", progress=_terminate_at(2))
    with locked(tmp_path / "run"), pytest.raises(RunError, match="another process is writing"):
        resume(tmp_path / "run")


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        resume(tmp_path / "absent")
    with pytest.raises(RunError, match="is no run"):
        resume(tmp_path)


def test_a_run_whose_config_was_changed_is_not_resumed(tmp_path: Path, store: Path) -> None:
    out = tmp_path / "run"
    train(config(tmp_path, store, MLP), out=out, progress=_terminate_at(2))
    (out / "config.yaml").write_text((out / "config.yaml").read_text().replace("- 8", "- 9"))
    with pytest.raises(RunError, match="the config of .* was changed since the run began"):
        resume(out)


def test_a_file_that_is_no_checkpoint_of_ours_is_refused(tmp_path: Path) -> None:
    import torch

    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("foreign", "text"):
        with pytest.raises(RunError, match="no checkpoint of histoproof"):
            checkpoint.read(tmp_path / f"{name}.safetensors")


def test_a_trail_with_a_changed_line_is_detected_and_named(tmp_path: Path, store: Path) -> None:
    train(config(tmp_path, store, MLP), out=tmp_path / "run")
    path = tmp_path / "run" / "trail.jsonl"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace("0x1.", "0x2.", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=r"trail.jsonl:6: the line does not fit the chain"):
        trail_end(path)


@pytest.mark.parametrize("name", ["densenet121", "resnet18"])
def test_the_standard_architectures_train(tmp_path: Path, store: Path, name: str) -> None:
    path = config(tmp_path, store, MLP.replace("name: mlp, hidden: [8], dropout: 0.3", f"name: {name}"))
    result = train(path, out=tmp_path / "run", progress=_terminate_at(2))
    assert result["status"] == "stopped"


def _terminate_at(step: int) -> Callable[[int, int, str], None]:
    """A progress function that sends SIGTERM to this process after a step, as a scheduler would."""

    def progress(done: int, total: int, words: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress
