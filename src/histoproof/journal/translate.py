"""Sentences that evidence brings along in English, in the page's language, where the words file knows them."""

import re
from collections.abc import Callable, Sequence

from .commas import in_commas

__all__ = ["translator"]

_PLACE = re.compile(r"(\{\*?\})")
_DEEPEST = 4
"""How far phrases may lie within phrases: evidence decides what a place holds, and may be hostile."""


def translator(pairs: Sequence[Sequence[str]], *, comma: bool) -> Callable[[str], str]:
    """A function from an English sentence to its translation by [English, translation] pairs, the first that fits.

    `{}` stands for any words without a semicolon on the left, and for the same words on the right, in order or numbered ({0});
    numbers in them get decimal commas where `comma`, but not in paths. `{*}` on the left stands for words that are translated
    themselves, or one by one where they are a list with commas. Sentences joined by "; " are translated one by one if the whole
    is unknown. What is unknown stays English: a translation never says what the evidence does not.
    """
    known = [(_PLACE.split(english), other) for english, other in pairs]

    def one(text: str, depth: int) -> str | None:
        for parts, other in known:
            groups = _match(parts[::2], text)
            if groups is not None:
                places = zip(parts[1::2], groups, strict=True)
                return other.format(*(phrase(g, depth) if place == "{*}" else verbatim(g) for place, g in places))
        return None

    def verbatim(words: str) -> str:
        return in_commas(words) if comma and "/" not in words else words

    def phrase(words: str, depth: int) -> str:
        if depth == _DEEPEST:
            return verbatim(words)
        listed = [one(part, depth + 1) for part in words.split(", ")]
        if all(part is not None for part in listed):
            return ", ".join(filter(None, listed))
        whole = one(words, depth + 1)
        return verbatim(words) if whole is None else whole

    def translate(text: str) -> str:
        whole = one(text, 0)
        return whole if whole is not None else "; ".join(one(part, 0) or part for part in text.split("; "))

    return translate


def _match(literals: Sequence[str], text: str) -> list[str] | None:
    """What stands between `literals` in `text`, at least a character each time, as little as fits from the left; None if they do
    not fit. In one go, without the regular expression's way back: texts of evidence may be long and made to be slow."""
    first, last = literals[0], literals[-1]
    if len(literals) == 1:
        return [] if text == first else None
    if not text.startswith(first) or not text.endswith(last):
        return None
    groups, at, end = [], len(first), len(text) - len(last)
    for literal in literals[1:-1]:
        found = text.find(literal, at + 1, end)
        if found < 0:
            return None
        groups.append(text[at:found])
        at = found + len(literal)
    groups.append(text[at:end])
    return groups if end > at and not any(";" in group for group in groups) else None
