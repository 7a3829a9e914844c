"""Parts of the audit that are made only when asked for: near-duplicates and suspicious labels.

They see the pixels in the audit's one pass, as uint8 and in order, and speak at its end.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .findings import Finding
from .inspection import Inspection
from .sources import Source

__all__ = ["Extra", "near_extra", "suspects_extra"]


class Extra(Protocol):
    """One such part."""

    rule: str
    """What it looks for and how, in words."""

    def take(self, source: Source, start: int, pixels: NDArray[np.uint8]) -> None:
        """See the next patches (n, 96, 96, 3) of a split, the first of row `start`; splits come in order."""

    def findings(self, sources: list[Source], seen: dict[str, Inspection], found: list[Finding]) -> list[Finding]:
        """What it found, given what the audit saw of every patch and `found` so far (copies among it)."""


def near_extra() -> Extra | None:
    """Near-duplicates; None where this version has none."""
    return None


def suspects_extra() -> Extra | None:
    """Suspicious labels; None where this version has none."""
    return None
