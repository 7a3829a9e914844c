"""Parts of the audit that are made only when asked for: near-duplicates and suspicious labels.

They see the pixels in the audit's one pass, as uint8 and in order, and speak at its end.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .features import features
from .findings import Finding, quarantine_reasons
from .inspection import Inspection
from .near import NearIndex, near_findings
from .partitions import slides_of
from .pixels import as_uint8
from .sources import Source
from .store import NO_LABEL
from .suspects import suspect_findings, suspects, why_not

__all__ = ["Extra", "near_extra", "suspects_extra"]


class Extra(Protocol):
    """One such part."""

    rule: str
    """What it looks for and how, in words."""

    def take(self, source: Source, start: int, pixels: NDArray[np.uint8]) -> None:
        """See the next patches (n, 96, 96, 3) of a split, the first of row `start`; splits come in order."""

    def findings(self, sources: list[Source], seen: dict[str, Inspection], found: list[Finding]) -> list[Finding]:
        """What it found, given what the audit saw of every patch and `found` so far (copies among it)."""


class _Near:
    rule = (
        "the same patch re-encoded, brighter or darker, shifted by up to 2 px, blurred or noisy, also turned; patches without "
        "structure (glass) are left out"
    )

    def __init__(self) -> None:
        self._index = NearIndex()

    def take(self, source: Source, start: int, pixels: NDArray[np.uint8]) -> None:
        self._index.add(source.name, start, pixels)

    def findings(self, sources: list[Source], seen: dict[str, Inspection], found: list[Finding]) -> list[Finding]:
        by_name = {source.name: source for source in sources}
        # All copies but one of each set: every finding of these kinds points to another copy, and the last to none.
        copies = {
            (f.split, f.index)
            for f in found
            if f.kind in ("duplicate", "cross_split_duplicate") and f.index is not None
        }

        def read(split: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
            return as_uint8(by_name[split].rows(rows))[0].copy()  # type: ignore[index]

        return list(near_findings(self._index.pairs(read, exclude=copies)))


def near_extra() -> Extra:
    """Near-duplicates. Raises DataError where faiss is not installed."""
    return _Near()


class _Suspects:
    rule = (
        "kernel ridge regression on colour and texture, cross-validated, confident learning (Northcutt et al. 2021): the labels "
        "it doubts most, ranked; a suspicion each, not an error"
    )

    def __init__(self) -> None:
        self._features: dict[str, list[NDArray[np.float16]]] = {}

    def take(self, source: Source, start: int, pixels: NDArray[np.uint8]) -> None:
        if source.labels is not None:
            self._features.setdefault(source.name, []).append(features(pixels))

    def findings(self, sources: list[Source], seen: dict[str, Inspection], found: list[Finding]) -> list[Finding]:
        # What is wrong otherwise is reported as such, and a model should not learn from it.
        wrong = quarantine_reasons(found)
        slides = slides_of(sources, [])
        result: list[Finding] = []
        for source in sources:
            if source.labels is None or source.name not in self._features:
                continue
            labels = np.where(source.labels < 0, NO_LABEL, source.labels).astype(np.uint8)
            labels[[row for split, row in wrong if split == source.name]] = NO_LABEL
            groups = slides.get(source.name)
            if why_not(labels, groups=groups) is None:
                described = np.concatenate(self._features[source.name])
                result += suspect_findings(source.name, suspects(described, labels, seed=0, groups=groups))
        return result


def suspects_extra() -> Extra:
    """Suspicious labels."""
    return _Suspects()
