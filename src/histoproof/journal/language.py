"""The words of the page, and numbers as its language writes them."""

import re
from importlib import resources
from typing import Any

from ..yamlfile import parse_value
from .translate import translator

__all__ = ["Language", "language", "visible"]


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """Text with control characters written out (\\x1b), so that they drive neither a terminal nor a browser."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class Language:
    """The catalogue words/LANG.yaml: `say` fills a text in, `get` returns what stands there."""

    def __init__(self, lang: str, catalogue: dict[str, Any]) -> None:
        self.lang = lang
        self.catalogue = catalogue
        self.comma = lang == "nl"
        """Whether numbers have decimal commas, and points between thousands."""
        self._translate = translator(catalogue["texts"], comma=self.comma)

    def get(self, key: str) -> Any:
        """What stands at a key such as "data.patches". Raises KeyError."""
        found: Any = self.catalogue
        for part in key.split("."):
            found = found[part]
        return found

    def say(self, key: str, **values: object) -> str:
        """The text at a key, its places filled."""
        text = self.get(key)
        assert isinstance(text, str), key
        return text.format(**values) if values else text

    def number(self, value: float | None, digits: int = 3) -> str:
        """A number with so many decimals; a dash for None."""
        if value is None:
            return "–"
        text = f"{value:.{digits}f}"
        return text.replace(".", ",") if self.comma else text

    def count(self, value: int) -> str:
        """A whole number, thousands apart."""
        return f"{value:,}".replace(",", "." if self.comma else ",")

    def percent(self, share: float, digits: int = 1) -> str:
        """A share of 1 as a percentage."""
        return f"{self.number(100 * share, digits)} %"

    def p_value(self, p: float | None) -> str:
        """A p-value; a dash for None."""
        if p is None:
            return "–"
        return f"< {self.number(0.0001, 4)}" if p < 0.0001 else self.number(p, 4)

    def interval(self, found: dict[str, Any], digits: int = 3) -> str:
        """An interval's ends, or why there is none."""
        if found["low"] is None:
            return self.translate(found.get("why") or "") or "–"
        return f"{self.number(found['low'], digits)} – {self.number(found['high'], digits)}"

    def with_interval(self, found: dict[str, Any], digits: int = 3) -> str:
        """A value and its interval in brackets."""
        if found["value"] is None or found["low"] is None:
            why = self.translate(found.get("why") or "")
            return f"{self.number(found['value'], digits)} ({why})" if why else self.number(found["value"], digits)
        return f"{self.number(found['value'], digits)} ({self.interval(found, digits)})"

    def translate(self, text: str) -> str:
        """A sentence that evidence brought along in English, in this language where the catalogue knows it."""
        return self._translate(text)


def language(lang: str) -> Language:
    """The language of words/LANG.yaml."""
    text = resources.files("histoproof.journal").joinpath("words", f"{lang}.yaml").read_text(encoding="utf-8")
    return Language(lang, parse_value(text))  # YAML 1.2: `on` and `no` are words
