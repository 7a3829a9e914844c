"""Cross-validated kernel ridge regression in closed form: what each patch's label would be, by models fitted without it.

The inverse of one kernel matrix gives the models of every fold of every repeat (the block form of leave-one-out, Rasmussen &
Williams 2006, Gaussian Processes for Machine Learning, section 5.4.2). No labels enter the kernel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHUNK", "out_of_fold"]

Floats = NDArray[np.float32]

CHUNK = 1024
"""Patches judged at a time."""
_RIDGE = 0.1
_WHITENING = 0.5
"""Principal components are divided by their spread to this power: 0 keeps it, 1 makes all equal. Either end is worse."""


def out_of_fold(
    features: NDArray[Any],
    rows: NDArray[np.int64],
    given: NDArray[np.int64],
    judges: list[NDArray[np.int64]],
    fitted: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Probability of tumour (rows,), not clipped, by the models that were fitted without the patch; NaN where there is none.

    `fitted` are the positions in `rows` that models are fitted to. One BLAS thread: sums then have one order, so the
    probabilities have the same bits on any number of cores.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        sample = features[rows[fitted]].astype(np.float32)
        centre, matrix = _components(sample)
        anchors = np.asarray((sample - centre) @ matrix, dtype=np.float32)
        some = anchors[: min(len(anchors), 1024)]
        width = float(np.median(_squared_distances(some, some)[np.triu_indices(len(some), 1)])) or 1.0
        folds = [int(fold.max()) + 1 for fold in judges]
        models = _fit(_kernel(anchors, anchors, width), given[fitted], [fold[fitted] for fold in judges], folds)
        total, votes = np.zeros(len(rows)), np.zeros(len(rows))
        for start in range(0, len(rows), CHUNK):
            chunk = np.arange(start, min(start + CHUNK, len(rows)))
            points = np.asarray((features[rows[chunk]].astype(np.float32) - centre) @ matrix, dtype=np.float32)
            kernel = _kernel(points, anchors, width)
            for fold, coefficients in zip(judges, models, strict=True):
                margin = (kernel @ coefficients)[np.arange(len(chunk)), fold[chunk]]
                seen = np.isfinite(margin)
                total[chunk[seen]] += (margin[seen] + 1) / 2
                votes[chunk[seen]] += 1
    mean = np.full(len(rows), np.nan)
    np.divide(total, votes, out=mean, where=votes > 0)
    return mean


def _components(sample: Floats) -> tuple[Floats, Floats]:
    """(d,) centre and (d, k) matrix of half-whitened principal components of the standardised features; label-free."""
    centre = sample.mean(axis=0, dtype=np.float64)
    spread = sample.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0)
    standardised = (sample - centre) * scale
    values, vectors = np.linalg.eigh(standardised.T @ standardised / len(sample))
    kept = values > 1e-6 * max(values[-1], 1e-12)
    matrix = scale[:, None] * vectors[:, kept] * values[kept] ** (-_WHITENING / 2)
    return centre.astype(np.float32), matrix.astype(np.float32)


def _squared_distances(a: Floats, b: Floats) -> Floats:
    squares: Floats = a @ b.T
    squares *= -2
    squares += (a * a).sum(axis=1)[:, None]
    squares += (b * b).sum(axis=1)
    return np.maximum(squares, 0, out=squares)


def _kernel(a: Floats, b: Floats, width: float) -> Floats:
    """Gaussian, plus a constant that stands for the intercept."""
    kernel = _squared_distances(a, b)
    kernel *= np.float32(-1 / width)
    np.exp(kernel, out=kernel)
    kernel += np.float32(1)
    return kernel


def _fit(kernel: Floats, given: NDArray[np.int64], judges: list[NDArray[np.int64]], folds: list[int]) -> list[Floats]:
    """Per repeat the coefficients (fitted, folds) of the models without each fold; NaN where a fold leaves only one class.

    `kernel` is overwritten. With G the inverse of kernel + ridge and a = G t, leaving out B gives a - G[:, B] G[B, B]^-1 a[B].
    """
    from scipy.linalg import lapack

    targets = (2 * given - 1).astype(np.float32)
    kernel[np.diag_indices(len(kernel))] += np.float32(_RIDGE)
    factor, failed = lapack.spotrf(kernel.T, lower=1, overwrite_a=1)
    assert not failed, "a kernel with a ridge is positive definite"
    inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    assert not failed
    for k in range(len(inverse)):  # LAPACK fills the lower half only; row by row needs no second matrix
        inverse[k, k + 1 :] = inverse[k + 1 :, k]
    whole = inverse @ targets
    models = []
    for fold, count in zip(judges, folds, strict=True):
        coefficients = np.full((len(targets), count), np.nan, dtype=np.float32)
        for number in range(count):
            out = np.flatnonzero(fold == number)
            if len(np.unique(given[fold != number])) == 2:
                part = np.linalg.solve(inverse[np.ix_(out, out)], whole[out])
                coefficients[:, number] = whole - inverse[:, out] @ part
                coefficients[out, number] = 0
        models.append(coefficients)
    return models
