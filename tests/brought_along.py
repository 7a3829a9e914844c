"""The English sentences that evidence may bring into the journal, gathered from the source.

A table says where they are written down; each is a template: a constant, or an f-string with {} for its places.
"""

import ast
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from .conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "histoproof"


@dataclass(frozen=True)
class Told:
    """Where sentences are written: functions, methods and constants of a module."""

    module: str
    names: tuple[str, ...]
    raised: bool = False
    """Its errors' problems, instead of what it returns."""


def told(module: str, *names: str) -> Told:
    return Told(module, names)


def raised(module: str, *names: str) -> Told:
    return Told(module, names, raised=True)


# Where the words of findings are made.
FINDINGS = (
    told("data/audit.py", "_whole_numbers", "_check_block", "_check_labels", "_collapsed"),
    told("data/copies.py", "ORIENTATIONS", "_exact_findings", "_dihedral_findings", "_conflicts", "_labels"),
    told("data/flat.py", "flat_finding", "_one_colour"),
    told("data/identity.py", "_judge"),
    told("data/near.py", "near_findings", "_words"),
    told("data/sketch.py", "ORIENTATIONS"),
    told("data/outliers.py", "outlier_findings"),
    told("data/pack.py", "_pack_labels"),
    told("data/partitions.py", "balance_findings", "slide_findings", "count_findings", "label_findings"),
    told("data/partitions.py", "overlap_findings", "_meta"),
    raised("data/partitions.py", "_meta"),
    told("data/pixels.py", "pixel_findings", "_farthest"),
    told("data/size.py", "bloat_findings"),
    told("data/sources.py", "open_sources", "_unexplained", "_from_files", "_regular", "_looks_like", "_labels"),
    told("data/sources.py", "_pixels", "_open", "_label_values", "_bad_label"),
    raised("data/sources.py", "_from_files", "_pixels", "_open", "_denied", "_find", "_labels", "_label_values"),
    told("data/stream.py", "unreadable_findings"),
    told("data/suspects.py", "suspect_findings"),
)
# What those quote of others.
QUOTED = (
    told("data/rows.py", "absent_part"),
    raised("data/rows.py", "check", "at_offset", "_by_table"),
    raised("data/sources.py", "read_column"),
    raised("data/pcam.py", "open_h5", "dataset", "csv_rows"),
)
CHECKS = (
    told("data/audit.py", "_checks"),
    told("data/extras.py", "rule"),
    told("data/flat.py", "FLAT_RULE"),
    told("data/outliers.py", "OUTLIER_RULE"),
    told("data/partitions.py", "BALANCE_RULE"),
    told("data/identity.py", "CHECKSUM_RULE", "known_counts", "_words"),
    told("journal/evidence/audit.py", "leaks", "_unseen"),
)
PROBLEMS = (
    told("journal/evidence/audit.py", "_contradictions"),
    told("journal/evidence/audited.py", "contradictions"),
    told("journal/evidence/dose.py", "_contradiction"),
    told("journal/evidence/runs.py", "_contradictions", "_unsworn", "_wrong_scores"),
    raised("diff.py", "diff"),
    raised("runs/folder.py", "open_run", "load_summary", "trail_end"),
    raised("files.py", "read_json", "read_lines"),
    raised("spikes.py", "spikes", "_batches"),
    raised("data/batches.py", "__post_init__", "__init__"),
    raised("data/store.py", "rows", "split", "open_store", "_check_small_files", "_open_split"),
    raised("data/partition.py", "rows", "members", "open_partition"),
)
WARNINGS = (
    told("train.py", "_one_class", "_warnings"),
    told("loop.py", "_restore"),
    raised("checkpoint.py", "read"),
)
# Why an interval, or a score, is missing.
WHYS = (
    told("metrics.py", "score_with_intervals", "whys"),
    told("bootstrap.py", "logit_interval"),
    told("runs/seeds.py", "spread"),
    told("delong.py", "auc_covariance", "delong"),
    told("compare.py", "paired_bootstrap", "_tested", "_auc_row"),
    told("threshold.py", "choose_threshold"),
    told("calibration.py", "reliability", "fit_temperature", "_fit", "_interval"),
    told("mcnemar.py", "mcnemar"),
    told("slices/mix.py", "interval"),
    told("slices/scores.py", "_concluded", "_t_interval"),
)
LEDGER = (
    told("ledger/__init__.py", "notes"),
    told("ledger/chain.py", "problems_of", "_missing", "without_witness", "own_witness"),
)
CHAMPIONS = (
    raised("frozen.py", "open_champion", "_content"),
    told("champion/freeze.py", "_not_better", "_looks_before"),
    told("evaluate.py", "_looks_before", "_warnings"),
    told("journal/evidence/studies.py", "_contradictions"),
    told("search/rows.py", "importances"),
)
SLICES = (
    told("journal/evidence/slices.py", "read_slices"),
    told("slices/report.py", "look"),
    told("slices/scores.py", "_whys", "_ECE_GAP"),
    told("slices/__init__.py", "_told", "_saliency"),
    told("drift/words.py", "_VERDICTS", "verdict"),
    told("drift/__init__.py", "_compared"),
)
CAUSES = (told("diff.py", "_data_differences", "_over_time"),)
RULES = (told("rules.py", "__str__"),)
EVERYTHING = (*FINDINGS, *QUOTED, *CHECKS, *PROBLEMS, *WARNINGS, *WHYS, *LEDGER, *CHAMPIONS, *SLICES, *CAUSES, *RULES)


def templates(where: Sequence[Told]) -> list[tuple[str, str]]:
    """[(module, template)...] of two words or more."""
    return list(dict.fromkeys((w.module, text) for w in where for text in _of(w)))


def _of(where: Told) -> Iterator[str]:
    for name in where.names:
        nodes = [node for node in ast.walk(tree(where.module)) if name in _names(node)]
        assert nodes, f"{where.module} has no {name} any more: where are its sentences now?"
        for node in nodes:
            yield from _raised(node) if where.raised else _told(node)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text())


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _raised(node: ast.AST) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and name_of(call).endswith("Error"):
            for argument in call.args:
                yield from _told(argument)


def _told(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg in ("valid", "next")):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
        return
    found = alternatives(node)
    if found:
        yield from (text for text in found if len(text.split()) > 1)
        return
    if isinstance(node, ast.FunctionDef):
        children: Sequence[ast.AST] = node.body
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _told(child)


def alternatives(node: ast.AST) -> list[str]:
    """What a constant, an f-string, a choice or a sum of such may say, {} for what only a run can tell. [] for the rest."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.IfExp):
        one, other = alternatives(node.body), alternatives(node.orelse)
        return [*one, *other] if one and other else []
    if isinstance(node, ast.JoinedStr):
        return _joined([alternatives(value) or ["{}"] for value in node.values])
    if isinstance(node, ast.FormattedValue):
        return alternatives(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = alternatives(node.left), alternatives(node.right)
        return _joined([left or ["{}"], right or ["{}"]]) if left or right else []
    return []


def _joined(parts: Sequence[Sequence[str]]) -> list[str]:
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def name_of(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
