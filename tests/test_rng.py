"""Random numbers are functions of a key and a counter."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histoproof import rng


def test_the_stream_is_splitmix64s() -> None:
    # First outputs of SplitMix64 from state 1234567, as published with the reference implementation's test vectors.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert rng.bits(1234567, np.arange(5, dtype=np.uint64)).tolist() == expected


def test_keys_depend_on_every_part_and_its_type() -> None:
    keys = {
        rng.key(1, "a", 1),
        rng.key(1, "a", 2),
        rng.key(1, "b", 1),
        rng.key(2, "a", 1),
        rng.key(1, "a", "1"),
        rng.key(1, "a1"),
    }
    assert len(keys) == 6


def test_a_key_is_what_it_was_in_every_version() -> None:
    assert rng.key(42, "order", 0) == 16197766615486603272


@given(st.integers(0, 2**63), st.integers(1, 500))
def test_a_permutation_holds_every_number_once(seed: int, n: int) -> None:
    assert sorted(rng.permutation(rng.key(seed, "order"), n).tolist()) == list(range(n))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20), st.integers(1, 6))
def test_a_patchs_numbers_do_not_depend_on_its_neighbours(indices: list[int], columns: int) -> None:
    together = rng.uniform_at(7, np.array(indices, dtype=np.int64), columns)
    alone = [rng.uniform_at(7, np.array([i], dtype=np.int64), columns)[0] for i in indices]
    assert np.array_equal(together, np.stack(alone))


def test_numbers_look_uniform() -> None:
    values = rng.uniform(rng.key(3, "u"), 100_000)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, bins=50, range=(0, 1))[0]
    chi2 = ((counts - 2000) ** 2 / 2000).sum()
    assert chi2 < 86  # the 0.1 % point of chi-squared with 49 degrees of freedom
