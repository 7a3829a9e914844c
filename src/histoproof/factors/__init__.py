"""Factors: cheap, named numbers of each patch, by which slices are cut and drift is seen. docs/slices.md lists them.

Measured in one pass over blocks of patches, about 0.7 ms a patch on one core of an AMD EPYC (Zen 4).
"""

from .columns import columns_of, parse_column
from .known import FACTORS, Factor, factor_of
from .measure import measure
from .reference import Reference, distances
from .table import Table, factor_table, write_table

__all__ = [
    "FACTORS",
    "Factor",
    "Reference",
    "Table",
    "columns_of",
    "distances",
    "factor_of",
    "factor_table",
    "measure",
    "parse_column",
    "write_table",
]
