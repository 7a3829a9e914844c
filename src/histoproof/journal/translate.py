"""Sentences that evidence brings along in English, in the page's language, where the words file knows them."""

import re
from collections.abc import Callable, Sequence

__all__ = ["translator"]

_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})*(?:\.\d+)?(?!\w)")


def translator(pairs: Sequence[Sequence[str]], *, comma: bool) -> Callable[[str], str]:
    """A function from an English sentence to its translation by [English, translation] pairs, the first that fits.

    `{}` stands for any words without a semicolon on the left, and for the same words on the right, in order; numbers in them get
    decimal commas where `comma`. Sentences joined by "; " are translated one by one if the whole is unknown. What is unknown
    stays English: a translation never says what the evidence does not.
    """
    patterns = [(re.compile("([^;]+?)".join(map(re.escape, english.split("{}")))), other) for english, other in pairs]

    def one(text: str) -> str | None:
        for pattern, other in patterns:
            if match := pattern.fullmatch(text):
                return other.format(*(_NUMBER.sub(_swapped, g) if comma else g for g in match.groups()))
        return None

    def translate(text: str) -> str:
        whole = one(text)
        return whole if whole is not None else "; ".join(one(part) or part for part in text.split("; "))

    return translate


def _swapped(number: re.Match[str]) -> str:
    return number.group().translate(str.maketrans(",.", ".,"))
