"""Keyed randomness: every random number is a pure function of a key and a counter.

Nothing here has state, so nothing has to be saved to resume a run, and no worker can change what another draws. The key
names what the numbers are for, e.g. `key(seed, "order", epoch)`; the counter says which of them. The generator is
SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, doi:10.1145/2660193.2660195) in random-access form: output n of the stream that
starts at state s is mix(s + n * gamma). Its bits depend on no library's version.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["bits", "key", "permutation", "uniform", "uniform_at"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def key(seed: int, *name: str | int) -> int:
    """A 64-bit key from the run's seed and what the numbers are for; BLAKE2b, so near names give unrelated keys."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def bits(k: int, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 random bits for each counter, same shape as `counters`."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        z = np.uint64(k) + (counters + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        out: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
        return out


def uniform(k: int, n: int) -> NDArray[np.float64]:
    """The first n numbers of key k, uniform in [0, 1)."""
    return _to_unit(bits(k, np.arange(n, dtype=np.uint64)))


def uniform_at(k: int, indices: NDArray[np.int64], columns: int) -> NDArray[np.float64]:
    """`columns` numbers in [0, 1) for each index, shape (len(indices), columns): the same whatever else is in `indices`."""
    counters = indices.astype(np.uint64)[:, None] * np.uint64(columns) + np.arange(columns, dtype=np.uint64)
    return _to_unit(bits(k, counters.astype(np.uint64)))


def permutation(k: int, n: int) -> NDArray[np.int64]:
    """A uniformly random order of range(n): the stable argsort of n random words (a tie has chance n**2 / 2**65)."""
    return np.argsort(bits(k, np.arange(n, dtype=np.uint64)), kind="stable").astype(np.int64)


def _to_unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out
