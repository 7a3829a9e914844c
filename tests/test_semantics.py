"""What a run computes is what it says: each test would fail if one line of the training or scoring were not what it should be."""

import csv
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from histoproof import checkpoint, models
from histoproof.compute import Standardize, Workers, as_input
from histoproof.config import AugmentConfig, CnnConfig, Config, MlpConfig, parse
from histoproof.data.batches import Batch, Pixels, Sampler, make_batch
from histoproof.data.pack import pack
from histoproof.data.store import Split, open_store
from histoproof.errors import DataError, RunError
from histoproof.evaluate import evaluate, load_predictions
from histoproof.files import JsonLines, read_json, read_lines
from histoproof.inference import load_model, logits, probabilities
from histoproof.optim import LossScale
from histoproof.shards import ShardedStep
from histoproof.train import resume, train

from .test_train import CNN, MLP, _terminate_at, config, digests

CPU = torch.device("cpu")
PLAIN = Standardize()


@pytest.fixture
def split(store: Path) -> Split:
    return open_store(store).split("train")


def batch(split: Split, size: int, augment: AugmentConfig | None = None, epoch: int = 0, number: int = 0) -> Batch:
    assert split.labels is not None
    sampler = Sampler(split.rows("exclude"), split.labels, "natural", size, 1)
    return make_batch(Pixels(split, "disk", CPU), sampler, sampler.order(0), augment or AugmentConfig(), epoch, number)


def sharded(model: torch.nn.Module, shards: int, precision: Any = "fp32") -> ShardedStep:
    return ShardedStep(model, shards, Workers(1), device=CPU, precision=precision, standardize=PLAIN, seed=5)


def test_batch_norm_statistics_are_the_mean_over_unequal_shards_weighted_by_size(split: Split) -> None:
    given = batch(split, 13)
    model, plain = (models.build(CnnConfig(name="cnn", widths=[4]), 3) for _ in range(2))
    sharded(model, 4)(given, 0, 1.0)
    bounds = [13 * v // 4 for v in range(5)]
    wanted = torch.zeros(4)
    for start, stop in itertools.pairwise(bounds):
        out = plain.stem(as_input(given.images[start:stop], PLAIN))  # type: ignore[operator]
        wanted += out.mean((0, 2, 3)).detach() * ((stop - start) / 13)
    assert len({b - a for a, b in itertools.pairwise(bounds)}) == 2
    found = dict(model.named_buffers())["stem_norm.running_mean"]
    torch.testing.assert_close(found, 0.1 * wanted, rtol=1e-4, atol=1e-6)


def test_dropout_masks_differ_between_steps_and_between_shards(split: Split) -> None:
    one = batch(split, 16)
    twice = Batch(0, np.tile(one.indices[:8], 2), one.images[:8].repeat(2, 1, 1, 1), one.labels[:8].repeat(2), None)
    model = models.build(MlpConfig(name="mlp", hidden=[32], dropout=0.5), 3)
    step = sharded(model, 2)
    first, again, later = (step(twice, number, 1.0).gradients[0].clone() for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    both = step(twice, 0, 1.0).loss
    halves = sharded(model, 1)(Batch(0, one.indices[:8], one.images[:8], one.labels[:8], None), 0, 1.0).loss
    assert both != halves  # equal shards with equal masks would have the loss of one of them


def test_augmentation_and_class_order_change_with_the_epoch(split: Split) -> None:
    assert split.labels is not None
    for augment in (AugmentConfig(d4=True), AugmentConfig(channel=0.2)):
        first, second = batch(split, 32, augment, 0), batch(split, 32, augment, 1)
        same = torch.equal(first.images, second.images)
        if first.colour is not None and second.colour is not None:
            same = same and torch.equal(first.colour[0], second.colour[0])
        assert not same
    rows = np.flatnonzero(split.labels == 1)[:9].tolist() + np.flatnonzero(split.labels == 0)[:30].tolist()
    sampler = Sampler(np.array(sorted(rows), dtype=np.int64), split.labels, "balanced", 4, 1)
    first_drawn, second_drawn = (
        set(sampler.order(epoch)[split.labels[sampler.order(epoch)] == 0].tolist()) for epoch in (0, 1)
    )
    assert first_drawn != second_drawn  # 19 or 20 of 30 normal patches: other ones in another epoch


def test_bf16_is_another_arithmetic_than_fp32(split: Split) -> None:
    given = batch(split, 16)
    results = [
        sharded(models.build(CnnConfig(name="cnn", widths=[8]), 3), 4, p)(given, 0, 1.0) for p in ("fp32", "bf16")
    ]
    assert results[0].loss != results[1].loss
    assert results[0].loss == pytest.approx(results[1].loss, rel=0.02)


def test_a_step_is_sgd_with_clipping_and_the_schedules_learning_rate(tmp_path: Path, store: Path, split: Split) -> None:
    text = MLP.replace("hidden: [8], dropout: 0.3", "hidden: [8], dropout: 0.0").replace(
        "sampling: balanced", "sampling: natural"
    )
    text = text.replace("momentum: 0.9", "momentum: 0.0, max_grad_norm: 0.05")
    train(
        config(tmp_path, store, text),
        ["train.checkpoint_every_steps=1"],
        out=tmp_path / "run",
        progress=_terminate_at(1),
    )
    resolved = parse(read_json(tmp_path / "run" / "checkpoints" / "last.json")["config"])
    model = models.build(resolved.model, resolved.seed)
    assert split.labels is not None
    sampler = Sampler(split.rows("exclude"), split.labels, "natural", 48, resolved.seed)
    given = make_batch(Pixels(split, "disk", CPU), sampler, sampler.order(0), resolved.augment, 0, 0)
    loss = F.binary_cross_entropy_with_logits(model(as_input(given.images, PLAIN)), given.labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
    assert norm > 0.05
    lr = 0.01 / 25  # one-cycle's first
    wanted = [p - lr * g * (0.05 / norm) for p, g in zip(model.parameters(), gradients, strict=True)]
    found = checkpoint.read(tmp_path / "run" / "checkpoints" / "last.safetensors").part("model")
    for (name, _), value in zip(model.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-8)
    (line,) = [entry for entry in read_lines(tmp_path / "run" / "metrics.jsonl") if entry["kind"] == "step"]
    assert line["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert line["lr"] == pytest.approx(lr)


def test_the_best_epoch_has_the_highest_score_and_its_weights_are_what_is_evaluated(
    tmp_path: Path, store: Path
) -> None:
    path = config(tmp_path, store, CNN.replace("epochs: 3", "epochs: 6"))
    result = train(path, ["train.checkpoint_every_steps=6"], out=tmp_path / "run")
    epochs = [line for line in read_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "epoch"]
    aucs = [line["valid"]["auc"] for line in epochs]
    best = int(np.argmax(aucs))
    assert result["best"]["epoch"] == best + 1
    assert result["best"]["intervals"]["auc"]["value"] == pytest.approx(aucs[best], abs=1e-12)
    assert evaluate(tmp_path / "run")["metrics"]["nll"]["value"] == pytest.approx(
        epochs[best]["valid"]["nll"], abs=1e-12
    )
    weights = checkpoint.tensors_sha256(
        checkpoint.read(tmp_path / "run" / "checkpoints" / "best.safetensors").part("model")
    )
    assert evaluate(tmp_path / "run")["weights_sha256"] == weights


def test_tta_is_the_mean_probability_over_all_8_views(tmp_path: Path, store: Path) -> None:
    train(config(tmp_path, store), out=tmp_path / "run")
    model = load_model(tmp_path / "run")
    images = torch.from_numpy(np.array(open_store(store).split("valid").images[:5]))
    views = [
        np.rot90(flipped, turn, (1, 2)) for flipped in (images.numpy(), images.numpy()[:, ::-1]) for turn in range(4)
    ]
    workers = Workers(1)
    each = [
        probabilities(logits(model, lambda a, b, v=v: torch.from_numpy(np.ascontiguousarray(v[a:b])), 5, workers))  # type: ignore[misc]
        for v in views
    ]
    tta = probabilities(logits(model, lambda a, b: images[a:b], 5, workers, tta=True))
    assert tta == pytest.approx(np.mean(each, axis=0), abs=1e-6)


def test_quarantined_valid_patches_are_not_scored(
    tmp_path: Path, store: Path, write_split: Callable[..., None]
) -> None:
    opened = open_store(store)
    for name in ("train", "valid"):
        part = opened.split(name)
        x = np.array(part.images, dtype=np.float32)
        if name == "valid":
            x[[3, 8]] = np.nan
        write_split(tmp_path / "d", name, x, part.labels)
    pack(tmp_path / "d", tmp_path / "s")
    train(config(tmp_path, tmp_path / "s", MLP), ["train.epochs=1"], out=tmp_path / "run")
    assert evaluate(tmp_path / "run")["n"] == 94
    assert not {3, 8} & set(load_predictions(tmp_path / "run" / "predictions" / "valid.npz").index.tolist())


def test_intervals_are_over_groups_where_they_are_known(tmp_path: Path, store: Path) -> None:
    train(config(tmp_path, store, MLP), ["train.epochs=1"], out=tmp_path / "a")
    train(config(tmp_path, store, MLP), ["train.epochs=1", "evaluate.groups.column=null"], out=tmp_path / "b")
    with_groups, without = evaluate(tmp_path / "a"), evaluate(tmp_path / "b")
    with (store / "meta.csv").open() as file:
        slides = {row["wsi"] for row in csv.DictReader(file) if row["split"] == "valid"}
    assert with_groups["groups"] == {"column": "wsi", "count": len(slides)}
    assert without["groups"] is None
    assert with_groups["metrics"]["auc"]["value"] == without["metrics"]["auc"]["value"]
    assert with_groups["metrics"]["auc"]["low"] != without["metrics"]["auc"]["low"]


@pytest.mark.parametrize(
    "name",
    ["train/images.npy", "train/labels.npy", "valid/images.npy", "valid/labels.npy", "quarantine.csv", "meta.csv"],
)
def test_one_changed_byte_in_any_file_of_the_store_is_refused(tmp_path: Path, store: Path, name: str) -> None:
    shutil.copytree(store, tmp_path / "s")
    path = tmp_path / "s" / name
    content = bytearray(path.read_bytes())
    content[-2 if name.endswith("csv") else -1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"changed|not what the manifest says"):
        train(config(tmp_path, tmp_path / "s", MLP), out=tmp_path / "run")


def test_evaluation_refuses_a_changed_store(tmp_path: Path, store: Path) -> None:
    shutil.copytree(store, tmp_path / "s")
    train(config(tmp_path, tmp_path / "s", MLP), ["train.epochs=1"], out=tmp_path / "run")
    images = np.load(tmp_path / "s" / "valid" / "images.npy", mmap_mode="r+")
    images[0, 0, 0, 0] ^= 1
    images.flush()
    with pytest.raises(DataError, match="not what the manifest says"):
        evaluate(tmp_path / "run")


def test_fp16_skips_an_overflow_and_its_scale_survives_a_stop(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "histoproof.loop.LossScale", lambda enabled: LossScale(enabled, scale=2.0**20)
    )  # overflows at first
    path = config(tmp_path, store, CNN, "fp16")
    train(path, out=tmp_path / "one", progress=_terminate_at(1))
    last = checkpoint.read(tmp_path / "one" / "checkpoints" / "last.safetensors")
    resolved = parse(last.state["config"])
    for name, initial in models.build(resolved.model, resolved.seed).named_parameters():
        assert torch.equal(last.part("model")[name], initial.detach()), f"{name} was changed by a step that overflowed"
    assert last.state["loss_scale"]["scale"] == 2.0**19
    assert read_lines(tmp_path / "one" / "metrics.jsonl")[0]["grad_norm"] is None
    whole = train(path, out=tmp_path / "whole")
    steps = [line for line in read_lines(tmp_path / "whole" / "metrics.jsonl") if line["kind"] == "step"]
    overflows = [line["step"] for line in steps if line["grad_norm"] is None]
    assert 1 < len(overflows) < len(steps)
    train(path, out=tmp_path / "stopped", progress=_terminate_at(overflows[-1] + 1))
    assert digests(resume(tmp_path / "stopped")) == digests(whole)


def test_resuming_with_other_data_or_another_config_is_refused(
    tmp_path: Path, store: Path, write_split: Callable[..., None]
) -> None:
    shutil.copytree(store, tmp_path / "s")
    path = config(tmp_path, tmp_path / "s", MLP)
    train(path, out=tmp_path / "run", progress=_terminate_at(3))
    text = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(text.replace("lr: 0.01", "lr: 0.5"))
    with pytest.raises(RunError, match="the config of .* was changed"):
        resume(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text)
    shutil.rmtree(tmp_path / "s")
    opened = open_store(store)
    for name in ("train", "valid"):
        part = opened.split(name)
        assert part.labels is not None
        write_split(tmp_path / "d", name, np.array(part.images)[::-1], part.labels[::-1])
    pack(tmp_path / "d", tmp_path / "s")
    with pytest.raises(RunError, match="the data of .* was changed"):
        resume(tmp_path / "run")


def test_a_trail_changed_before_a_resume_is_refused(tmp_path: Path, store: Path) -> None:
    train(config(tmp_path, store, MLP), out=tmp_path / "run", progress=_terminate_at(4))
    path = tmp_path / "run" / "trail.jsonl"
    path.write_text(path.read_text().replace('"step":2', '"step":9', 1))
    with pytest.raises(RunError, match=r"trail\.jsonl"):
        resume(tmp_path / "run")


def test_the_damaged_checkpoint_never_pushes_out_the_whole_one(tmp_path: Path, store: Path) -> None:
    out = tmp_path / "run"
    train(config(tmp_path, store), ["train.checkpoint_every_steps=2"], out=out, progress=_terminate_at(9))
    (out / "checkpoints" / "last.safetensors").write_bytes(b"damaged")
    found, problems = checkpoint.load_latest(out / "checkpoints", set_aside=True)
    assert found is not None
    assert len(problems) == 1
    assert not (out / "checkpoints" / "last.safetensors").exists()
    (out / "checkpoints" / "previous.safetensors").write_bytes(b"damaged too")
    before = (out / "trail.jsonl").read_bytes()
    with pytest.raises(RunError, match="no checkpoint in .* is whole"):
        resume(out)
    assert (out / "trail.jsonl").read_bytes() == before


def test_a_torn_line_does_not_spoil_what_is_appended_after_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1}\n{"a":')
    lines = JsonLines(path)
    lines.append({"a": 2})
    lines.close()
    assert read_lines(path) == [{"a": 1}, {"a": 2}]


def test_a_stop_within_validation_loses_no_step(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from histoproof import loop

    path = config(tmp_path, store)
    whole = train(path, out=tmp_path / "whole")
    original = vars(loop)["predict_split"]
    calls: list[int] = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if not calls:
            calls.append(1)
            _terminate_at(0)(0, 0, "")
        return original(*arguments, **options)

    monkeypatch.setattr(loop, "predict_split", interrupted)
    stopped = train(path, out=tmp_path / "stopped")
    assert (stopped["status"], stopped["epochs"], stopped["steps"]) == ("stopped", 0, 6)
    assert digests(resume(tmp_path / "stopped")) == digests(whole)


def test_onecycle_of_two_steps_and_nesterov_without_momentum() -> None:
    from histoproof.config import OneCycleConfig
    from histoproof.errors import ConfigError
    from histoproof.optim import Schedule

    assert [Schedule(OneCycleConfig(name="onecycle", warmup=0.5), 0.4, 2, 1).lr(step) > 0 for step in (0, 1)] == [
        True,
        True,
    ]
    with pytest.raises(ConfigError, match="nesterov = true needs"):
        parse({"model": {"name": "mlp"}, "optim": {"nesterov": True, "momentum": 0.0}})
    assert isinstance(parse({"model": {"name": "mlp"}}, ["seed=010"]), Config)
    assert parse({"model": {"name": "mlp"}}, ["seed=010"]).seed == 10


def test_two_processes_train_as_one(tmp_path: Path, store: Path) -> None:
    path = config(tmp_path, store, CNN.replace("epochs: 3", "epochs: 1"))
    alone = train(path, out=tmp_path / "alone")
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "histoproof",
    ]
    command = [*launcher, "train", str(path), "--out", str(tmp_path / "two"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert digests(json.loads(done.stdout)) == digests(alone)
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert again.returncode != 0
    assert "no run is ever overwritten" in again.stderr
