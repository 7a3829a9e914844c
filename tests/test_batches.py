"""What an epoch draws, and what a patch becomes, are functions of keys alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histoproof.augment import colour_shifts, d4_elements, dihedral
from histoproof.compute import Standardize, as_input
from histoproof.config import AugmentConfig
from histoproof.data.batches import Ahead, Pixels, Sampler, channel_statistics, make_batch, prefetched
from histoproof.data.store import Split, open_store
from histoproof.errors import ConfigError

CPU = torch.device("cpu")
ALL = AugmentConfig(d4=True, brightness=0.1, contrast=0.1, channel=0.1)


@pytest.fixture
def split(store: Path) -> Split:
    return open_store(store).split("train")


def sampler(labels: list[int], sampling: str = "natural", batch_size: int = 4, seed: int = 1) -> Sampler:
    rows = np.arange(len(labels), dtype=np.int64)
    return Sampler(rows, np.array(labels, dtype=np.uint8), sampling, batch_size, seed)  # type: ignore[arg-type]


@given(st.integers(1, 200), st.integers(0, 50))
def test_natural_sampling_draws_every_patch_once(n: int, epoch: int) -> None:
    assert sorted(sampler([0] * n, batch_size=1).order(epoch).tolist()) == list(range(n))


@given(st.lists(st.integers(0, 1), min_size=4, max_size=200).filter(lambda y: len(set(y)) == 2), st.integers(0, 9))
def test_balanced_sampling_halves_the_draws_and_uses_no_patch_twice_more_than_another(
    labels: list[int], epoch: int
) -> None:
    order = sampler(labels, "balanced").order(epoch)
    assert len(order) == len(labels)
    y = np.array(labels)
    assert abs(int(y[order].sum()) * 2 - len(labels)) <= 1
    for label in (0, 1):
        drawn = np.bincount(order, minlength=len(labels))[y == label]
        assert drawn.max() - drawn.min() <= 1


def test_epochs_differ_and_seeds_differ() -> None:
    one, two = sampler([0, 1] * 50), sampler([0, 1] * 50, seed=2)
    assert one.order(0).tolist() != one.order(1).tolist()
    assert one.order(0).tolist() != two.order(0).tolist()
    assert one.order(3).tolist() == sampler([0, 1] * 50).order(3).tolist()


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="train.batch_size = 9 is larger than the train split's 8 usable patches"):
        sampler([0, 1] * 4, batch_size=9)


def test_balanced_sampling_of_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="balanced needs both classes"):
        sampler([1] * 8, "balanced")


def test_the_last_batch_may_be_smaller(split: Split) -> None:
    s = Sampler(np.arange(10, dtype=np.int64), np.zeros(256, np.uint8), "natural", 4, 1)
    sizes = [len(b.indices) for b in prefetched(Pixels(split, "disk", CPU), s, ALL, 0, 0, 2)]
    assert (sizes, s.steps_per_epoch) == ([4, 4, 2], 3)


@pytest.mark.parametrize("depth", [None, 0, 1, 4])
@pytest.mark.parametrize("residency", ["disk", "ram", "device"])
def test_prefetching_and_residency_change_nothing(split: Split, depth: int | None, residency: str) -> None:
    assert split.labels is not None
    s = Sampler(split.rows("exclude"), split.labels, "balanced", 50, 9)
    pixels = Pixels(split, residency, CPU)  # type: ignore[arg-type]
    order = s.order(2)
    found = []
    if depth is None:
        ahead = Ahead(pixels, s, ALL, 2, 1)
        for batch in ahead:
            found.append(replace(batch, images=batch.images.clone()))
            for _ in range(len(found) % 3):  # asked for once, twice, not at all
                ahead.prepare()
    else:
        found = list(prefetched(pixels, s, ALL, 2, 1, depth))
    assert [b.step_in_epoch for b in found] == [1, 2, 3, 4, 5]
    for batch in found:
        plain = make_batch(Pixels(split, "disk", CPU), s, order, ALL, 2, batch.step_in_epoch)
        assert np.array_equal(batch.indices, plain.indices)
        assert torch.equal(batch.images, plain.images)
        assert batch.colour is not None
        assert plain.colour is not None
        assert all(torch.equal(a, b) for a, b in zip(batch.colour, plain.colour, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_pinned_buffers_are_not_filled_again_before_they_were_copied(split: Split) -> None:
    device = torch.device("cuda")
    pixels, rows = Pixels(split, "disk", device), [np.arange(k, k + 50, dtype=np.int64) for k in range(100)]
    taken = [pixels.take(some) for some in rows]
    for some, found in zip(rows, taken, strict=True):
        assert np.array_equal(found.cpu().numpy(), split.images[some])


def test_a_failure_in_the_prefetch_thread_reaches_the_loop(split: Split) -> None:
    assert split.labels is not None
    s = Sampler(np.array([0, 999_999], dtype=np.int64), np.zeros(1_000_000, np.uint8), "natural", 2, 1)
    with pytest.raises(IndexError):
        list(prefetched(Pixels(split, "disk", CPU), s, ALL, 0, 0, 4))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(0, 20))
def test_a_patchs_augmentation_does_not_depend_on_its_batch(indices: list[int], epoch: int) -> None:
    rows = np.array(indices, dtype=np.int64)
    together = d4_elements(5, epoch, rows)
    shifts = colour_shifts(ALL, 5, epoch, rows)
    assert shifts is not None
    for place, row in enumerate(rows):
        assert d4_elements(5, epoch, np.array([row]))[0] == together[place]
        alone = colour_shifts(ALL, 5, epoch, np.array([row]))
        assert alone is not None
        assert torch.equal(alone[0][0], shifts[0][place])
        assert torch.equal(alone[1][0], shifts[1][place])


def test_the_8_elements_are_the_8_symmetries_of_the_square() -> None:
    patch = torch.arange(9 * 3, dtype=torch.uint8).reshape(1, 3, 3, 3)
    views = [dihedral(patch, np.array([k]))[0].numpy() for k in range(8)]
    plain = patch[0].numpy()
    expected = [np.rot90(plain, k) for k in range(4)] + [np.rot90(plain[::-1], k) for k in range(4)]
    assert all(np.array_equal(a, b) for a, b in zip(views, expected, strict=True))
    assert len({v.tobytes() for v in views}) == 8


def test_the_centre_stays_the_centre() -> None:
    # The label speaks of the centre 32x32: no augmentation may move it.
    patch = torch.zeros((8, 96, 96, 3), dtype=torch.uint8)
    patch[:, 32:64, 32:64] = 1
    assert torch.equal(dihedral(patch, np.arange(8)), patch)


def test_colour_stays_within_what_the_config_allows() -> None:
    config = AugmentConfig(brightness=0.1, contrast=0.2, channel=0.05)
    shift = colour_shifts(config, 3, 0, np.arange(2000))
    assert shift is not None
    out = as_input(torch.full((2000, 2, 2, 3), 127, dtype=torch.uint8), Standardize(), shift)
    assert out.min() >= 127 / 255 * 0.95 - 0.12
    assert out.max() <= 127 / 255 * 1.05 + 0.12
    assert out.std() > 0.01
    assert colour_shifts(AugmentConfig(d4=True), 3, 0, np.arange(5)) is None


def test_a_models_input_is_colour_and_standardisation_of_pixels_divided_by_255() -> None:
    images = torch.randint(0, 256, (7, 96, 96, 3), dtype=torch.uint8)
    standardize = Standardize((0.7, 0.5, 0.7), (0.2, 0.3, 0.2))
    factor, offset = torch.rand(7, 3) + 0.5, torch.rand(7, 3) - 0.5
    v = images.permute(0, 3, 1, 2).double() / 255
    changed = (v * factor[:, :, None, None] + offset[:, :, None, None]).clamp(0, 1)
    mean, std = (torch.tensor(each).double().view(1, 3, 1, 1) for each in (standardize.mean, standardize.std))
    for wanted, made in (
        (v, as_input(images, Standardize())),
        ((v - mean) / std, as_input(images, standardize)),
        (changed, as_input(images, Standardize(), (factor, offset))),
        ((changed - mean) / std, as_input(images, standardize, (factor, offset))),
    ):
        torch.testing.assert_close(made.double(), wanted, rtol=0, atol=1e-6)
        assert made.is_contiguous(memory_format=torch.channels_last)
    alone = as_input(images[3:4], standardize, (factor[3:4], offset[3:4]))
    assert torch.equal(alone, made[3:4])  # a patch's input does not depend on its company


def test_channel_statistics_are_numpys(split: Split) -> None:
    rows = np.arange(0, 256, 3, dtype=np.int64)
    mean, std = channel_statistics(split, rows)
    values = np.asarray(split.images[rows], dtype=np.float64).reshape(-1, 3) / 255
    assert np.allclose(mean, values.mean(0), rtol=0, atol=1e-9)
    assert np.allclose(std, values.std(0), rtol=0, atol=1e-9)
