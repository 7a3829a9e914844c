"""What was decided, with a digest of everything it hangs on, written once: champion.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, ledger
from ..config import identity
from ..data.partition import Part, open_part
from ..errors import HistoproofError
from ..experiment import config_digest
from ..files import readable, sha256_file, write_json
from ..frozen import FORMAT, VERSION, champion_json, digest_of
from ..inference import load_model
from ..provenance import environment, now
from ..rules import Rule
from ..runs import Run
from ..runs.seeds import spread
from .candidates import Candidate
from .figures import write_figures
from .judge import Judged
from .opponents import Opponents, compared, thresholds
from .valid import Valid

__all__ = ["freeze"]


def freeze(
    out: Path,
    selection: dict[str, Any],
    winner: Candidate,
    judged: Judged,
    others: Opponents,
    valid: Valid,
    by: str,
    rule: Rule,
) -> dict[str, Any]:
    """Write predictions, figures and, last, champion.json; returns its content."""
    place = Run(out)
    judged.found.save(place.predictions("valid"))
    at = thresholds(others, rule, valid)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "status": "frozen",
        "frozen": now(),
        **_model(judged),
        **_patches(valid),
        "predictions_sha256": sha256_file(place.predictions("valid")),
        "tta": judged.config.evaluate.tta,
        "temperature": judged.temperature,
        "threshold": judged.threshold,
        "rule": str(rule),
        "primary": by,
        "selection": selection,
        "seeds": _seeds(judged, by, winner),
        "calibration": judged.calibration.as_json(),
        "choice": judged.choice.as_json(),
        "baselines": {b.name: {**b.save(out / "baselines"), "threshold": at[b.name]} for b in others.models},
        "skipped": others.skipped,
        "comparison": (table := compared(judged, others, at, valid, by)),
    }
    write_figures(place.figures, valid.labels, judged.raw.probability, judged.found.probability, content, valid.groups)
    model = load_model(judged.run.path)
    warnings = [*judged.run.load_summary()["warnings"], *_not_better(table, by), *_looks_before(valid)]
    content |= {"warnings": warnings, "histoproof": __version__, "environment": environment(model.device.type)}
    plain: dict[str, Any] = json.loads(readable(content))  # as it will be read back
    plain["champion_sha256"] = digest_of(plain)
    write_json(champion_json(out), plain)
    return plain


def _model(judged: Judged) -> dict[str, Any]:
    """Which run, which weights, which experiment."""
    summary, config = judged.run.load_summary(), judged.run.load_config()
    return {
        "run": judged.median.run,
        "seed": judged.median.seed,
        "model": config.model.name,
        "parameters": summary["parameters"],
        "weights_sha256": summary["best_weights_sha256"],
        "checkpoint_sha256": sha256_file(judged.run.best),
        "trail_sha256": summary["trail_sha256"],
        "config_sha256": config_digest(config),
        "config": identity(config),
    }


def _patches(valid: Valid) -> dict[str, Any]:
    """Which store, partition and groups."""
    groups = None
    if valid.groups is not None:
        groups = {"column": valid.column, "count": len(np.unique(valid.groups))}
    return {
        "store": str(valid.store.path),
        "store_sha256": valid.store.content_sha256,
        "partition": valid.part.as_json() if isinstance(valid.part, Part) else None,
        "n": len(valid.labels),
        "positive": int(valid.labels.sum()),
        "groups": groups,
    }


def _not_better(table: dict[str, list[dict[str, Any]]], by: str) -> list[str]:
    """The baselines that the champion was not shown to beat in the score it was chosen by: then what was it trained for?"""
    found = []
    for name, rows in table.items():
        row = next(row for row in rows if row["score"] == by)
        value, p = row["difference"]["value"], row["p_holm"]
        if name != "runner-up" and (value is None or value <= 0 or p is None or p >= 0.05):
            said = "no p-value" if p is None else f"p {p:.4f} after Holm"
            scores = f"{_plain(row['a'])} against {_plain(row['b'])}, {said}"
            found.append(f"not shown to be better than {name} in {by}: {scores}")
    return found


def _plain(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _looks_before(valid: Valid) -> list[str]:
    """Whether the test split was opened before this champion was frozen: then its look at it is not blind."""
    try:
        openings = [one for one in ledger.openings(valid.store.path) if one.get("partition") == _test_partition(valid)]
    except HistoproofError as e:
        return [f"the ledger of the test split does not hold: {e.problem}"]
    if not openings:
        return []
    last, times = openings[-1], "once" if len(openings) == 1 else f"{len(openings)} times"
    return [
        f"the test split was opened {times} before this champion was frozen, last on {last['opened']} by {last['by']} "
        f"({last['reason']}): whoever chose it may have known those scores, and its look at test is not blind"
    ]


def _test_partition(valid: Valid) -> str | None:
    """The partition whose test part this champion would open; None: the store's own test split."""
    if not isinstance(valid.part, Part):
        return None
    try:
        part = open_part(valid.store, "test", valid.part.partition, valid.part.fold)
    except HistoproofError:  # it has none
        return None
    return part.partition if isinstance(part, Part) else None


def _seeds(judged: Judged, by: str, winner: Candidate) -> dict[str, Any]:
    """The retrained seeds, their spread, and what the search had promised."""
    scores = {by: spread([score.primary for score in judged.scores])}
    if by != "auc":
        scores["auc"] = spread([score.auc for score in judged.scores])
    return {
        "rows": [vars(score) for score in judged.scores],
        "scores": scores,
        "promised": {by: winner.primary, "auc": winner.auc},
    }
