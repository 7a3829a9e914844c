"""Who may become champion: the finished runs of a study, those that differ in nothing but the seed as one, ranked on valid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..data.partition import Part
from ..errors import ConfigError, DataError, HistoproofError, RunError
from ..evaluate import Predictions
from ..rules import Rule
from ..runs import Run
from ..runs.listing import run_folders
from ..runs.seeds import by_config
from ..runs.status import describe
from ..threshold import choose_threshold
from .valid import Valid, predictions_of

__all__ = ["BY", "MARKS", "Candidate", "Field", "RunScore", "alike", "find", "primary_of", "rank", "score_run"]

BY = ("f2", "f1", "auc", "average_precision", "balanced_accuracy", "accuracy")
"""What a champion may be chosen by."""
MARKS = ("champion.json", "selection.json")
"""What tells a champion's own folder, whose runs are no candidates."""
_WITHOUT_THRESHOLD = ("auc", "average_precision")
_SAME = {"seed", "data.store", "data.residency", "data.prefetch", "data.verify", "train.workers", "train.device"}
"""Config keys by which candidates are not told apart."""


@dataclass(frozen=True)
class RunScore:
    """One training on valid, at the threshold that the rule picks on its own predictions."""

    run: str
    seed: int
    primary: float | None
    """The primary score to expect on new patches: .632-corrected where it hangs on the threshold, see `corrected`."""
    seen: float | None
    """The same as seen on the patches that the threshold was chosen on."""
    auc: float | None
    threshold: float | None
    corrected: bool
    """False where `primary` is `seen`: for want of a threshold in it, or because valid is too small, see `alike`."""


@dataclass(frozen=True)
class Candidate:
    """One config; with several seeds their means."""

    group: str
    model: str
    scores: tuple[RunScore, ...]
    config: dict[str, Any]
    """The config keys in which candidates differ."""

    @property
    def primary(self) -> float | None:
        """Mean over seeds."""
        return _mean([s.primary for s in self.scores])

    @property
    def auc(self) -> float | None:
        """Mean over seeds."""
        return _mean([s.auc for s in self.scores])

    @property
    def median(self) -> RunScore:
        """The run that stands for it: that with the median score, of two the lower."""
        ordered = sorted(self.scores, key=lambda s: (_low(s.primary), _low(s.auc), s.seed))
        return ordered[(len(ordered) - 1) // 2]

    def as_json(self) -> dict[str, Any]:
        """A dict of all this."""
        runs = [vars(s) for s in self.scores]
        return {"model": self.model, "config": self.config, "primary": self.primary, "auc": self.auc, "runs": runs}


@dataclass(frozen=True)
class Field:
    """What lies in a study."""

    groups: list[dict[str, Any]]
    """As `runs.seeds.by_config` gives them."""
    rows: dict[str, dict[str, Any]]
    """The finished runs' rows, by path."""
    unfinished: int
    left_out: list[dict[str, str]]
    """[{"run", "why"}...]"""
    store_sha256: str
    partition_sha256: str | None

    def check(self, valid: Valid) -> None:
        """Raise DataError unless the store is the one that the runs were trained on."""
        part = valid.part.sha256 if isinstance(valid.part, Part) else None
        if (valid.store.content_sha256, part) != (self.store_sha256, self.partition_sha256):
            raise DataError(
                f"{valid.store.path} is not the store, or holds not the partition, that the runs were trained on",
                valid="the same patches, labels, quarantine and partition, wherever they lie",
                next="say where they lie now with --store",
            )


def find(study: Path, out: Path) -> Field:
    """The finished runs under `study`, but for those of champions frozen or begun in it. Raises RunError, DataError.

    Raises DataError unless all of them share one store and one partition: scores on other patches cannot be compared.
    """
    if not study.is_dir():
        raise RunError(f"no such folder: {study}", valid="a study, or any folder with finished runs in it")
    own = [mark.parent.resolve() for name in MARKS for mark in study.rglob(name)] + [out.resolve()]
    paths = [p for p in run_folders(study) if not any(p.resolve().is_relative_to(folder) for folder in own)]
    rows = [describe(path) for path in paths]
    finished = [row for row in rows if row["status"] == "finished"]
    damaged = [{"run": row["run"], "why": str(row["problem"])} for row in rows if row["status"] == "damaged"]
    unfinished = len(rows) - len(finished) - len(damaged)
    if not finished:
        raise RunError(
            f"there is no finished run in {study} ({unfinished} unfinished, {len(damaged)} damaged)",
            next="see `histoproof runs`; train some with `histoproof train CONFIG`",
        )
    patches = _share_patches(finished)
    groups = by_config(finished)
    twice = [out for group in groups for out in group["left_out"]]
    return Field(groups, {row["run"]: row for row in finished}, unfinished, [*damaged, *twice], *patches)


def _share_patches(rows: Sequence[dict[str, Any]]) -> tuple[str, str | None]:
    """(digest of the store, of the partition) of all runs. Raises DataError unless they are of one."""
    found: dict[tuple[Any, ...], str] = {}
    for row in rows:
        summary = Run(Path(row["run"])).load_summary()
        part = summary.get("partition") or {}
        key = (summary.get("store_sha256"), part.get("sha256"), part.get("fold"), row["config"].get("data.quarantine"))
        found.setdefault(key, row["run"])
    if len(found) > 1:
        (one, a), (other, b), *_ = found.items()
        what = ("store", "partition", "fold", "data.quarantine")
        differs = next(name for name, x, y in zip(what, one, other, strict=True) if x != y)
        raise DataError(
            f"the runs are of {len(found)} different sets of patches: {a} and {b} differ in their {differs}",
            valid="runs of one store, one partition, one fold and one data.quarantine: others cannot be compared",
            next="give a folder that holds only those",
        )
    store, part, *_ = next(iter(found))
    return str(store), part


def primary_of(field: Field, by: str | None) -> str:
    """The metric to choose by: `by`, else the evaluate.primary on which all runs agree. Raises ConfigError."""
    if by is not None:
        if by not in BY:
            raise ConfigError(f"--by {by}", valid=", ".join(BY))
        return by
    named = sorted({str(row["primary"]) for row in field.rows.values()})
    if len(named) > 1:
        raise ConfigError(f"the runs name {' and '.join(named)} as evaluate.primary", next="say which with --by")
    return named[0]


def score_run(
    path: str, seed: int, found: Predictions, by: str, rule: Rule, *, groups: NDArray[np.str_] | None, replicates: int
) -> RunScore:
    """One run's scores on valid."""
    choice = choose_threshold(found.label, found.probability, rule, groups=groups, replicates=replicates)
    value = metrics.score(found.label, found.probability)
    if by in _WITHOUT_THRESHOLD:
        return RunScore(path, seed, value[by], value[by], value["auc"], choice.threshold.value, False)
    primary, seen = _of(choice.corrected, by), choice.chosen[by].value
    best = seen if primary is None else primary
    return RunScore(path, seed, best, seen, value["auc"], choice.threshold.value, primary is not None)


def rank(
    field: Field,
    valid: Valid,
    by: str,
    rule: Rule,
    *,
    replicates: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[list[Candidate], list[dict[str, str]]]:
    """Candidates from the best down, by the primary score, then AUC; and the runs that could not be scored, with why."""
    out, left_out = [], []
    differing = _differing(field)
    done, total = 0, sum(len(group["runs"]) for group in field.groups)
    for group in field.groups:
        mine = []
        for path in group["runs"]:
            try:
                found = predictions_of(Path(path), valid, tta=False)
                seed = field.rows[path]["seed"]
                mine.append(score_run(path, seed, found, by, rule, groups=valid.groups, replicates=replicates))
            except HistoproofError as e:
                left_out.append({"run": path, "why": e.problem})
            done += 1
            if progress is not None:
                progress(done, total, "candidates")
        if mine:
            config = field.rows[group["runs"][0]]["config"]
            shown = {key: config.get(key) for key in differing}
            out.append(Candidate(group["group"], group["model"], tuple(mine), shown))
    if not out:
        raise RunError(f"no run can be scored on valid: {left_out[0]['run']}: {left_out[0]['why']}")
    scores = {score.run: score for score in alike([score for one in out for score in one.scores])}
    out = [replace(one, scores=tuple(scores[score.run] for score in one.scores)) for one in out]
    return sorted(out, key=lambda c: (-_low(c.primary), -_low(c.auc), c.scores[0].run)), left_out


def alike(scores: Sequence[RunScore]) -> tuple[RunScore, ...]:
    """Scores as they may be compared: where one could not be corrected (valid is one group, or a few patches), none is."""
    if all(score.corrected for score in scores):
        return tuple(scores)
    return tuple(replace(score, primary=score.seen, corrected=False) for score in scores)


def _differing(field: Field) -> list[str]:
    configs = [field.rows[group["runs"][0]]["config"] for group in field.groups]
    keys = dict.fromkeys(key for config in configs for key in config if key not in _SAME)
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]


def _of(scores: dict[str, float | None], by: str) -> float | None:
    if by != "balanced_accuracy":
        return scores[by]
    recall, specificity = scores["recall"], scores["specificity"]
    return None if recall is None or specificity is None else (recall + specificity) / 2


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return fmean(kept) if kept else None


def _low(value: float | None) -> float:
    return float("-inf") if value is None else value
