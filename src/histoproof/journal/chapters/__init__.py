"""The nine chapters, in the mission's order: each a function from evidence and words to blocks."""

from collections.abc import Sequence

from ..blocks import Chapter
from ..evidence import Evidence
from ..language import Language
from . import benchmark, configuration, data, gradients, handover, models, reproducibility, slices, team

__all__ = ["chapters"]

_CHAPTERS = (reproducibility, data, configuration, gradients, models, slices, team, benchmark, handover)


def chapters(found: Evidence, w: Language) -> Sequence[Chapter]:
    """All nine; one without evidence says what to run."""
    return [module.chapter(found, w) for module in _CHAPTERS]
