"""A step's bits do not depend on who computed which shard; its mathematics are those of the plain step."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from histoproof import checkpoint, models
from histoproof.checkpoint import tensors_sha256
from histoproof.compute import Precision, Standardize, Workers, as_input, deterministic
from histoproof.config import AugmentConfig, CnnConfig, MlpConfig, ModelConfig
from histoproof.data.batches import Batch, Pixels, Sampler, make_batch
from histoproof.data.store import open_store
from histoproof.shards import ShardedStep

CPU = torch.device("cpu")
STANDARDIZE = Standardize((0.7, 0.5, 0.7), (0.2, 0.3, 0.2))


@pytest.fixture(scope="module")
def batch(store: Path) -> Batch:
    split = open_store(store).split("train")
    assert split.labels is not None
    sampler = Sampler(np.arange(64, dtype=np.int64), split.labels, "natural", 61, 1)
    augment = AugmentConfig(d4=True, channel=0.1)
    return make_batch(Pixels(split, "disk", CPU), sampler, sampler.order(0), augment, 0, 0)


def fingerprint(config: ModelConfig, batch: Batch, workers: int, shards: int = 4, precision: Precision = "fp32") -> str:
    """Digest of two steps' gradients and of the batch-norm statistics after them."""
    pool = Workers(workers)
    with deterministic(CPU, 1):
        model = models.build(config, 3)
        step = ShardedStep(
            model,
            shards,
            pool,
            device=CPU,
            precision=precision,
            standardize=STANDARDIZE,
            seed=5,
        )
        tensors: dict[str, torch.Tensor] = {}
        for number in range(2):
            result = step(batch, number, 1.0)
            tensors |= {f"{number}.{k}": g.clone() for k, g in enumerate(result.gradients)}
            tensors[f"{number}.loss"] = torch.tensor(result.loss, dtype=torch.float64)
    pool.close()
    return tensors_sha256(tensors | dict(model.named_buffers()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "config", [MlpConfig(name="mlp"), CnnConfig(name="cnn", widths=[8, 16], dropout=0.2)], ids=lambda c: c.name
)
def test_any_number_of_workers_gives_the_same_bits(batch: Batch, config: ModelConfig, precision: Precision) -> None:
    found = {fingerprint(config, batch, workers, precision=precision) for workers in (1, 2, 3, 4, 7)}
    assert len(found) == 1


def test_repetition_gives_the_same_bits(batch: Batch) -> None:
    config = CnnConfig(name="cnn", widths=[8, 16])
    assert len({fingerprint(config, batch, 2) for _ in range(5)}) == 1


@pytest.mark.parametrize("shards", [1, 2, 4, 61, 100])
def test_without_batch_norm_and_dropout_it_is_the_plain_gradient(batch: Batch, shards: int) -> None:
    config = MlpConfig(name="mlp", hidden=[16], dropout=0.0)
    model, plain = models.build(config, 3), models.build(config, 3)
    step = ShardedStep(model, shards, Workers(1), device=CPU, precision="fp32", standardize=STANDARDIZE, seed=5)
    result = step(batch, 0, 1.0)
    images, labels, colour = batch.shard(slice(None))
    loss = F.binary_cross_entropy_with_logits(plain(as_input(images, STANDARDIZE, colour)), labels)
    expected = torch.autograd.grad(loss, list(plain.parameters()))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    for found, wanted in zip(result.gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_one_shard_updates_batch_norm_as_torch_does(batch: Batch) -> None:
    config = CnnConfig(name="cnn", widths=[8, 16])
    model, plain = models.build(config, 3), models.build(config, 3).train()
    step = ShardedStep(model, 1, Workers(1), device=CPU, precision="fp32", standardize=STANDARDIZE, seed=5)
    for number in range(3):
        step(batch, number, 1.0)
        images, _, colour = batch.shard(slice(None))
        plain(as_input(images, STANDARDIZE, colour))
    for (name, found), wanted in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7, msg=name)


def test_the_loss_scale_changes_no_gradient(batch: Batch) -> None:
    config = MlpConfig(name="mlp", hidden=[16])
    results = []
    for scale in (1.0, 1024.0):
        step = ShardedStep(
            models.build(config, 3), 4, Workers(1), device=CPU, precision="fp32", standardize=STANDARDIZE, seed=5
        )
        results.append(step(batch, 0, scale).gradients)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_repeats_its_bits(batch: Batch, precision: Precision) -> None:
    device = torch.device("cuda")
    found = set()
    for _ in range(3):
        with deterministic(device, 1):
            model = models.build(CnnConfig(name="cnn", widths=[8, 16], dropout=0.2), 3).to(device)
            step = ShardedStep(
                model,
                4,
                Workers(1),
                device=device,
                precision=precision,
                standardize=STANDARDIZE,
                seed=5,
            )
            moved = Batch(0, batch.indices, batch.images.to(device), batch.labels.to(device), None)
            result = step(moved, 0, 1.0)
        found.add(tensors_sha256({str(k): g for k, g in enumerate(result.gradients)}))
    assert len(found) == 1


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_workers_share_any_number_of_pieces_in_order(count: int, pieces: int) -> None:
    workers = Workers(count)
    assert list(workers.share(lambda _, piece: piece, pieces)) == list(range(pieces))
    workers.close()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_done_beside_is_done_once_and_a_failure_reaches_the_caller(count: int) -> None:
    workers, done = Workers(count), []
    assert list(workers.share(lambda _, piece: piece, 5, lambda: done.append(1))) == list(range(5))
    assert list(workers.share(lambda _, piece: piece, 0, lambda: done.append(2))) == []
    assert done == [1, 2]

    def fails(_: int, piece: int) -> int:
        if piece == 3:
            raise ValueError("piece 3")
        return piece

    with pytest.raises(ValueError, match="piece 3"):
        workers.share(fails, 5)
    assert list(workers.share(lambda _, piece: piece, 3)) == [0, 1, 2]  # and the threads go on
    workers.close()


@pytest.mark.parametrize("hidden", [[64, 32], [12], [3, 2]])
def test_the_blocks_of_the_first_layer_are_the_layer(batch: Batch, hidden: list[int]) -> None:
    """Large and small: its weight's digest is the same whether taken block by block or from the whole."""
    model, pool = models.build(MlpConfig(name="mlp", hidden=hidden, dropout=0.0), 3), Workers(2)
    step = ShardedStep(model, 4, pool, device=CPU, precision="fp32", standardize=STANDARDIZE, seed=5)
    result = step(batch, 0, 1.0)
    assert checkpoint.fingerprint(result.gradients, result.digests) == checkpoint.fingerprint(result.gradients)
    assert bool(result.digests) == (27_648 * hidden[0] >= checkpoint.LARGE)
    expected = torch.linalg.vector_norm(torch.stack([g.double().norm() for g in result.gradients]))
    assert result.norm == pytest.approx(float(expected), rel=1e-5)
    pool.close()


def test_after_a_failure_nobody_begins_another_piece() -> None:
    workers, begun = Workers(2), []

    def fails(_: int, piece: int) -> None:
        begun.append(piece)
        if piece == 0:
            raise ValueError("piece 0")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="piece 0"):
        workers.share(fails, 500)
    workers.close()
    assert len(begun) < 250
