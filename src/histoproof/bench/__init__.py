"""Benchmarks: throughput by device, batch size and precision; the bottleneck; memory; ceilings; why it was slower yesterday."""

from .auditing import audit
from .comparing import compare, compare_words
from .inferring import infer
from .loading import loader
from .result import read_bench
from .training import train
from .words import words

__all__ = ["audit", "compare", "compare_words", "infer", "loader", "read_bench", "train", "words"]
