"""`diff` names what was planted, with the right step; `twin` agrees with its original."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from histoproof import checkpoint
from histoproof.compute import available_cores
from histoproof.data.pack import pack
from histoproof.data.store import open_store
from histoproof.diff import diff
from histoproof.errors import RunError
from histoproof.files import read_json, read_lines
from histoproof.runs import open_run
from histoproof.train import resume, train
from histoproof.twin import twin

CONFIG = """
seed: 3
data: {store: STORE}
model: {name: cnn, widths: [4, 8]}
optim: {name: sgd, lr: 0.01}
train: {epochs: 2, batch_size: 32, weights_digest_every_steps: 4}
evaluate: {bootstrap: 100}
"""


@pytest.fixture
def config(tmp_path: Path, store: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.replace("STORE", str(store)))
    return path


@pytest.fixture
def original(config: Path, tmp_path: Path) -> Path:
    train(config, out=tmp_path / "a")
    return tmp_path / "a"


def parted(result: dict[str, Any]) -> tuple[str, int]:
    assert not result["identical"]
    return result["first_divergence"]["what"], result["first_divergence"]["step"]


def test_a_run_and_its_twin_are_identical(original: Path) -> None:
    result = twin(original)
    assert result["identical"]
    assert result["first_divergence"] is None
    assert result["words"][0] == "identical: the same 16 steps, the same weights"


def test_another_seed(config: Path, original: Path, tmp_path: Path) -> None:
    train(config, ["seed=4"], out=tmp_path / "b")
    result = diff(original, tmp_path / "b")
    assert parted(result) == ("config", 0)
    assert (result["first_divergence"]["a"], result["first_divergence"]["b"]) == ({"seed": 3}, {"seed": 4})


def test_another_learning_rate(config: Path, original: Path, tmp_path: Path) -> None:
    train(config, ["optim.lr=0.02"], out=tmp_path / "b")
    result = diff(original, tmp_path / "b")
    assert parted(result) == ("config", 0)
    assert result["differences"][0]["key"] == "optim.lr"


def test_how_the_work_is_done_is_named_and_cannot_explain_anything(
    config: Path, original: Path, tmp_path: Path
) -> None:
    train(config, ["train.workers=1", "data.prefetch=0"], out=tmp_path / "b")
    result = diff(original, tmp_path / "b")
    assert result["identical"]
    assert {"train.workers", "data.prefetch"} <= {d["key"] for d in result["differences"]}
    assert all(d["weight"] == 0 for d in result["differences"])


@pytest.mark.parametrize("what", ["label", "pixel"])
def test_one_changed_label_or_pixel(
    config: Path, original: Path, tmp_path: Path, store: Path, write_split: Callable[..., None], what: str
) -> None:
    opened = open_store(store)
    row = 100
    for name in ("train", "valid"):
        split = opened.split(name)
        assert split.labels is not None
        x, y = np.array(split.images), np.array(split.labels)
        if name == "train" and what == "label":
            y[row] = 1 - y[row]
        if name == "train" and what == "pixel":
            x[row, 50, 50, 1] ^= 1
        write_split(tmp_path / "d", name, x, y)
    pack(tmp_path / "d", tmp_path / "s")
    train(config, [f"data.store={tmp_path / 's'}"], out=tmp_path / "b")
    result = diff(original, tmp_path / "b")
    first = next(k for k in range(8) if row in _rows(config, k))
    assert parted(result) == ("data", first)
    assert "same batches, same weights, other loss" in result["words"][0] or "other gradients" in result["words"][0]


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores to use two threads")
def test_one_thread_against_two_without_shards(config: Path, tmp_path: Path) -> None:
    for threads in (1, 2):
        overrides = ["train.shards=1", f"train.workers={threads}", "model.widths=[32,64]", "train.epochs=1"]
        train(config, overrides, out=tmp_path / str(threads))
    result = diff(tmp_path / "1", tmp_path / "2")
    what, step = parted(result)
    assert what in ("gradient", "loss")
    assert step == 0
    assert any("train.workers, 1 against 2" in words for words in result["words"])


def test_one_flipped_bit_in_a_checkpoint(config: Path, original: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    train(config, ["train.checkpoint_every_steps=1"], out=out, progress=_terminate_at(11))
    path = out / "checkpoints" / "last.safetensors"
    found = checkpoint.read(path)
    found.tensors["model.head.weight"].view(torch.int32)[0, 0] ^= 1
    checkpoint.write(path, found.tensors, found.state)
    resume(out)
    result = diff(original, out)
    assert parted(result) == ("weights", 11)
    assert "the checkpoint it went on from was not the same" in result["words"][0]
    assert "nothing that was written down explains it" in result["words"][1]


def test_another_torch_is_named_even_where_it_changed_nothing(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "b")
    path = tmp_path / "b" / "environment.json"
    content = read_json(path)
    content["packages"]["torch"]["version"] = "2.12.0"
    path.write_text(json.dumps(content))
    result = diff(original, tmp_path / "b")
    assert result["identical"]
    assert result["differences"][0]["key"] == "packages.torch.version"
    assert "2.13.0" in result["words"][1]
    assert "2.12.0" in result["words"][1]


def test_a_run_that_went_on_elsewhere_says_so_and_diff_names_it(config: Path, original: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    train(config, ["train.checkpoint_every_steps=1"], out=out, progress=_terminate_at(6))
    path = out / "environment.json"
    content = read_json(path)
    here = content["packages"]["torch"]["version"]
    content["packages"]["torch"]["version"] = "2.12.0"
    path.write_text(json.dumps(content))
    resume(out)
    assert [(step, found["packages"]["torch"]["version"]) for step, found in open_run(out).environments()] == [
        (0, "2.12.0"),
        (6, here),
    ]
    keys = [d["key"] for d in diff(original, out)["differences"] if d["weight"]]
    assert "packages.torch.version" in keys  # from the start, where it differs from the original's
    train(config, ["train.checkpoint_every_steps=1"], out=tmp_path / "c", progress=_terminate_at(6))
    (tmp_path / "c" / "environment.json").write_text(json.dumps({**content, "packages": {"torch": {"version": here}}}))
    with (tmp_path / "c" / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "environment", "step": 6, "environment": content}) + "\n")
    causes = {d["key"]: (d["a"], d["b"]) for d in diff(original, tmp_path / "c")["differences"] if d["weight"]}
    assert causes["packages.torch.version (from step 6 on)"] == (here, "2.12.0")


def test_going_on_in_the_same_environment_is_not_a_second_one(config: Path, tmp_path: Path) -> None:
    train(config, out=tmp_path / "b", progress=_terminate_at(6))
    resume(tmp_path / "b")
    assert len(open_run(tmp_path / "b").environments()) == 1


def test_differences_are_ranked_by_what_can_explain_the_parting(config: Path, original: Path, tmp_path: Path) -> None:
    train(config, ["optim.lr=0.02", "data.prefetch=1"], out=tmp_path / "b")
    path = tmp_path / "b" / "environment.json"
    content = read_json(path)
    content["packages"]["torch"]["version"], content["packages"]["pillow"]["version"] = "2.12.0", "1.0"
    path.write_text(json.dumps(content))
    keys = [d["key"] for d in diff(original, tmp_path / "b")["differences"]]
    assert (
        keys.index("optim.lr")
        < keys.index("packages.torch.version")
        < keys.index("packages.pillow.version")
        < keys.index("data.prefetch")
    )


def test_an_unfinished_run_is_the_same_as_far_as_it_goes(config: Path, original: Path, tmp_path: Path) -> None:
    train(config, out=tmp_path / "b", progress=_terminate_at(5))
    result = diff(original, tmp_path / "b")
    assert not result["identical"]
    assert result["first_divergence"] is None
    assert "the same as far as both go (5 steps)" in result["words"][0]


def test_a_forged_trail_is_refused(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "b")
    path = tmp_path / "b" / "trail.jsonl"
    path.write_text(path.read_text().replace('"step":7', '"step":8', 1))
    with pytest.raises(RunError, match="does not fit the chain"):
        diff(original, tmp_path / "b")
    with pytest.raises(RunError, match="no such run"):
        diff(original, tmp_path / "absent")


def test_evaluating_in_between_changes_nothing(config: Path, original: Path, tmp_path: Path) -> None:
    from histoproof.evaluate import evaluate

    train(config, out=tmp_path / "b", progress=_terminate_at(9))
    evaluate(tmp_path / "b")
    resume(tmp_path / "b")
    assert diff(original, tmp_path / "b")["identical"]


def test_the_trail_names_the_weights_before_each_step_and_the_sum_of_all(original: Path) -> None:
    lines = read_lines(original / "trail.jsonl")[1:]
    assert len({line["weights"] for line in lines}) == len(lines)
    assert [line["step"] for line in lines if "weights_sha256" in line] == [3, 7, 11, 15]
    assert lines[-1]["weights_sha256"] == read_json(original / "summary.json")["weights_sha256"]


def _rows(config: Path, step: int) -> list[int]:
    from histoproof.config import load
    from histoproof.experiment import prepare

    sampler = prepare(load(config)).sampler
    return list(sampler.order(0)[step * 32 : (step + 1) * 32])


def _terminate_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, words: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress
