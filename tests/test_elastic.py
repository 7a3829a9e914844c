"""The same bits for any number of threads and processes, and for a run that is killed again and again, anywhere."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from histoproof.errors import HistoproofError
from histoproof.files import read_json, read_lines
from histoproof.train import resume, train

pytestmark = pytest.mark.slow

CNN = "model: {name: cnn, widths: [8, 16], dropout: 0.2}\noptim: {name: adamw, lr: 0.003, weight_decay: 0.05}"
MLP = "model: {name: mlp, hidden: [32, 16], dropout: 0.3}\noptim: {name: sgd, lr: 0.01, momentum: 0.9}"
CONFIG = """
seed: 11
data: {store: STORE, sampling: balanced, standardize: train}
MODEL
augment: {d4: true, brightness: 0.1, contrast: 0.1, channel: 0.05}
schedule: {name: plateau, patience: 0}
train: {epochs: EPOCHS, batch_size: 16, precision: PRECISION, shards: 4, checkpoint_every_steps: 7}
evaluate: {bootstrap: 100}
"""
KINDS = [("cnn", "fp32"), ("cnn", "bf16"), ("mlp", "fp32"), ("mlp", "bf16")]
KILLS = 25


def config(tmp_path: Path, store: Path, kind: str, precision: str, epochs: int) -> Path:
    text = CONFIG.replace("MODEL", CNN if kind == "cnn" else MLP)
    for name, value in (("STORE", store), ("EPOCHS", epochs), ("PRECISION", precision)):
        text = text.replace(name, str(value))
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def facts(run: Path) -> tuple[str, str, bytes, bytes]:
    summary = read_json(run / "summary.json")
    files = (run / "metrics.jsonl").read_bytes(), (run / "trail.jsonl").read_bytes()
    return summary["weights_sha256"], summary["trail_sha256"], *files


def torchrun(processes: int, *arguments: object) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, "-m", "histoproof", "train", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("weights_sha256") == 1  # one process speaks for all


@pytest.mark.parametrize(("kind", "precision"), [("cnn", "fp32"), ("cnn", "bf16"), ("mlp", "fp32")])
def test_threads_processes_and_a_change_of_their_number_give_the_same_bits(
    tmp_path: Path, store: Path, kind: str, precision: str
) -> None:
    path = config(tmp_path, store, kind, precision, epochs=2)
    found: dict[str, Any] = {}
    for workers in (1, 2, 4):
        train(path, [f"train.workers={workers}"], out=tmp_path / f"threads-{workers}")
        found[f"{workers} threads"] = facts(tmp_path / f"threads-{workers}")
    for processes in (2, 4):
        torchrun(processes, path, "--out", tmp_path / f"processes-{processes}")
        found[f"{processes} processes"] = facts(tmp_path / f"processes-{processes}")
    out = tmp_path / "changing"
    _kill_after(out, 9, _start(path, out, "train.workers=2"))
    _set_workers(out, 1)
    _kill_after(out, 20, _start_resume(out))
    _set_workers(out, 4)
    resume(out)
    found["killed under 2, then under 1, ended under 4"] = facts(out)
    out = tmp_path / "thread-then-processes"
    _kill_after(out, 9, _start(path, out, "train.workers=2"))
    torchrun(2, "--resume", out)
    found["killed under 2 threads, ended under 2 processes"] = facts(out)
    assert len(set(found.values())) == 1, {name: value[:2] for name, value in found.items()}


@pytest.mark.parametrize(("kind", "precision"), KINDS)
def test_killed_at_25_random_moments_it_ends_in_the_same_bits(
    tmp_path: Path, store: Path, kind: str, precision: str
) -> None:
    path = config(tmp_path, store, kind, precision, epochs=20)  # 320 steps
    whole, out = tmp_path / "whole", tmp_path / "killed"
    train(path, out=whole)
    moments = random.Random(f"{kind} {precision}")
    process, kills, within_a_write = _start(path, out), 0, 0
    while kills < KILLS:
        # Wait for the run to be under way again, then for a random while: on its own a fast run would be over too soon.
        at = _steps(out)
        _wait_for(out, at + moments.randint(1, 14), process)
        if moments.random() < 0.5:
            _wait_for_a_write(out, process, seconds=1.0)
        time.sleep(moments.random() * 0.01)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        within_a_write += bool(list((out / "checkpoints").glob(".*.tmp")))
        process = _start_resume(out)
    process.wait(timeout=300)
    if not (out / "summary.json").exists():
        resume(out)
    assert kills == KILLS
    assert within_a_write > 0
    assert facts(out) == facts(whole)
    steps = [line["step"] for line in read_lines(out / "metrics.jsonl") if line["kind"] == "step"]
    assert steps == list(range(320))


def _start(path: Path, out: Path, *overrides: str) -> subprocess.Popen[bytes]:
    sets = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "histoproof", "train", str(path), "--out", str(out), *sets]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _start_resume(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "histoproof", "train", "--resume", str(out)], stdout=subprocess.DEVNULL
    )


def _kill_after(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    _wait_for(out, step, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "summary.json").exists()


def _steps(out: Path) -> int:
    try:
        return max(len(read_lines(out / "trail.jsonl")) - 1, 0)
    except HistoproofError:  # read while it was being cut
        return 0


def _wait_for(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while _steps(out) < step and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _wait_for_a_write(out: Path, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until a checkpoint is being written."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if any(name.startswith(".last") for name in os.listdir(out / "checkpoints")):  # noqa: PTH208 (speed)
            return


def _set_workers(out: Path, workers: int) -> None:
    path = out / "config.yaml"
    lines = [
        f"  workers: {workers}" if line.startswith("  workers:") else line for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
