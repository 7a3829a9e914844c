"""What a study says: a row a trial, counts, the best, which parameters mattered, and the same in words."""

from collections.abc import Sequence
from typing import Any

from ..errors import HistoproofError
from ..files import canonical
from ..runs import Run
from .points import POINT, quiet, view
from .queue import finished
from .space import from_optuna
from .spec import SpaceSpec, minimised
from .study import Study

__all__ = ["best_of", "contradictions", "counts", "importances", "rows", "trial_words", "words"]

_FEWEST = 10
_TREES = 64
_SHOWN = 10


def rows(study: Study, trials: Sequence[Any], spec: SpaceSpec) -> list[dict[str, Any]]:
    """One row a trial, in the order of their numbers.

    {number, state: "complete|pruned|failed|retried|running|waiting", params: {config key: value}, value, epochs, run (from the
    study's folder; null if there is none), worker, retried_from, retried_as, point, reason, started, ended, intermediate:
    {epoch: value}}. A pruned trial's value is its last reported one; a failed or retried one has none.
    """
    return [_row(study, trial, spec) for trial in trials if POINT in trial.user_attrs]


def _row(study: Study, trial: Any, spec: SpaceSpec) -> dict[str, Any]:
    attributes = trial.user_attrs
    folder = study.trial(trial.number)
    state = trial.state.name.lower()
    if state == "fail":
        state = "failed" if finished(trial) else "retried"
    reported = {int(epoch): value for epoch, value in sorted(trial.intermediate_values.items())}
    return {
        "number": trial.number,
        "state": state,
        "params": {
            key: from_optuna(spec.space[key], value) for key, value in trial.params.items() if key in spec.space
        },
        "value": trial.value if state in ("complete", "pruned") else None,
        "epochs": attributes.get("epochs", max(reported, default=0)),
        "run": str(folder.relative_to(study.path)) if (folder / "config.yaml").is_file() else None,
        "worker": attributes.get("worker"),
        "retried_from": attributes.get("retried_from"),
        "retried_as": attributes.get("retried_as"),
        "point": attributes.get("point"),
        "reason": attributes.get("reason"),
        "started": trial.datetime_start.isoformat() if trial.datetime_start else None,
        "ended": trial.datetime_complete.isoformat() if trial.datetime_complete else None,
        "intermediate": reported,
    }


def contradictions(study: Study, table: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """Complete trials whose score is not what their own run says: the journal, or the run, was changed since."""
    problems = []
    for row in table:
        if row["state"] != "complete" or row["run"] is None:
            continue
        try:
            told = Run(study.path / row["run"]).load_summary()["best"]["valid"][metric]
        except (HistoproofError, KeyError, TypeError) as e:
            problems.append(
                f"trial {row['number']}: {e.problem if isinstance(e, HistoproofError) else 'a damaged summary.json'}"
            )
            continue
        if told != row["value"]:
            problems.append(
                f"trial {row['number']} has {metric} {row['value']} in the journal, its summary.json says {told}"
            )
    return problems


def counts(table: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many trials are in each state; "finished" are those that count: complete, pruned and failed."""
    states = ("complete", "pruned", "failed", "retried", "running", "waiting")
    found = {state: sum(row["state"] == state for row in table) for state in states}
    return {"finished": found["complete"] + found["pruned"] + found["failed"], **found}


def best_of(table: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The complete trials, the best first; of equals the earlier."""
    complete = [row for row in table if row["state"] == "complete"]
    sign = 1 if minimised(metric) else -1
    return sorted(complete, key=lambda row: (sign * row["value"], row["number"]))


def importances(trials: Sequence[Any], spec: SpaceSpec, direction: str) -> dict[str, Any]:
    """{"method", "n", "values": {key: share of the score's variance, summing to 1} or null, "why" if null}.

    Functional ANOVA over a random forest (Hutter, Hoos & Leyton-Brown, ICML 2014), as Optuna has it, over complete trials and
    the keys that vary in all of them. Pruned trials are left out: their scores are of other epochs.
    """
    found: dict[str, Any] = {"method": "functional ANOVA", "n": 0, "values": None}
    complete = [trial for trial in trials if trial.state.name == "COMPLETE" and POINT in trial.user_attrs]
    found["n"] = len(complete)
    always = [key for key, d in spec.space.items() if d.when is None]
    if len(complete) < _FEWEST:
        return found | {"why": f"not measured: {len(complete)} complete trials, {_FEWEST} are needed"}
    if len({trial.value for trial in complete}) < 2:
        return found | {"why": "not measured: every complete trial has the same score"}
    varying = [key for key in always if len({canonical(trial.params.get(key)) for trial in complete}) > 1]
    if len(varying) < 1:
        return found | {"why": "not measured: no key differs among the complete trials"}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    with quiet():
        evaluator = FanovaImportanceEvaluator(n_trees=_TREES, seed=spec.seed % 2**32)
        shares = get_param_importances(view(complete, direction), evaluator=evaluator, params=varying)
    return found | {"values": {key: float(value) for key, value in shares.items()}}


def trial_words(row: dict[str, Any], metric: str, best: dict[str, Any] | None, epochs: int | None = None) -> str:
    """A trial that is over, as a line."""
    head = f"trial {row['number']:04d} (worker {row['worker']})"
    params = _params(row["params"])
    of = f" of {epochs}" if epochs else ""
    said = {
        "complete": f"{metric} {_number(row['value'])}",
        "pruned": f"pruned after {row['epochs']}{of} epochs at {metric} {_number(row['value'])}",
        "failed": f"failed: {row['reason']}",
        "retried": f"{row['reason']}; goes on as trial {row['retried_as']}",
    }.get(row["state"], row["state"])
    known = f"; best so far {_number(best['value'])} (trial {best['number']:04d})" if best else ""
    return f"{head}: {said}{known}  [{params}]"


def words(result: dict[str, Any]) -> list[str]:
    """What `search` returned, for people: counts, the best trials, what mattered."""
    n = result["counts"]
    others = [f"{n[state]} {state}" for state in ("complete", "pruned", "failed") if n[state]]
    lines = [
        f"study: {result['study']}",
        f"{n['finished']} of {result['trials_wanted']} trials finished: {', '.join(others)}",
    ]
    for state, what in (
        ("retried", "were cut off and tried again"),
        ("running", "are being trained"),
        ("waiting", "wait"),
    ):
        if n[state]:
            lines.append(f"{n[state]} trials {what}")
    lines += [
        f"failed: trial {row['number']:04d}: {row['reason']}" for row in result["trials"] if row["state"] == "failed"
    ]
    ranked = best_of(result["trials"], result["metric"])[:_SHOWN]
    if ranked:
        lines.append(
            f"best by valid {result['metric']} (the best of many is flattered: `histoproof champion` retrains it):"
        )
    lines += [f"  {_number(row['value'])}  trial {row['number']:04d}  {_params(row['params'])}" for row in ranked]
    shares = result["importances"]
    if shares["values"]:
        told = ", ".join(f"{key} {value:.2f}" for key, value in shares["values"].items())
        lines.append(f"share of the score's variance ({shares['method']}, n = {shares['n']}): {told}")
    else:
        lines.append(f"which keys mattered: {shares['why']}")
    lines += [f"contradiction: {problem}" for problem in result["problems"]]
    if result["status"] == "stopped":
        lines.append(f"stopped by {result['signal']}; the same command goes on")
    elif result["status"] == "incomplete":
        lines.append(result["why"])
    return lines


def _params(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
