"""Chapter 6: where the model fails."""

from ..blocks import Chapter, nothing
from ..evidence import Evidence
from ..language import Language

__all__ = ["chapter"]


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    return Chapter("c6", w.say("slices.title"), nothing(w.say("nothing"), "histoproof slices RUN"))
