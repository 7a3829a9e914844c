"""From many runs to one champion: chosen, retrained over new seeds, calibrated, given a threshold, compared, frozen."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import ConfigError, OutputError, writing
from ..experiment import config_digest
from ..files import is_leftover, read_json, write_json
from ..frozen import champion_json, is_champion
from ..rules import FBeta, Rule, parse_rule
from ..runs import Run, locked
from .candidates import Candidate, find, primary_of, rank
from .freeze import freeze
from .judge import judge
from .opponents import opponents
from .retrain import new_seeds, retrain
from .valid import open_valid

__all__ = ["champion"]

_RANKING_REPLICATES = 200
"""Enough for a mean over resamples; intervals, which need more, are made for the champion alone."""


def champion(
    study: Path,
    *,
    seeds: int = 3,
    by: str | None = None,
    rule: str | None = None,
    out: Path | None = None,
    store: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Choose the best config of a study, retrain it over `seeds` (>= 3) new seeds, and freeze one of those runs in `out`.

    `study`: any folder with finished runs of one store and partition, or one run. `by`: the metric (default: the runs'
    evaluate.primary). `rule`: how the threshold is chosen, see `rules.parse_rule` (default f2; where F1 is the metric: f1).
    `out`: default STUDY/champion; what was begun there goes on, what was frozen there is never overwritten. `store` replaces
    the configs' (the study came from another machine). `say` gets a line a stage.

    Everything is decided on valid; no label of test is read. Writes OUT/champion.json last and returns its content (keys: see
    docs/champion.md); or {"status": "stopped", "out", ...} when a signal asked to stop. Raises ConfigError, DataError, RunError,
    OutputError.
    """
    if seeds < 3:
        raise ConfigError(f"--seeds {seeds}", valid="3 or more: a mean of fewer says nothing of how far seeds move it")
    asked_rule = None if rule is None else parse_rule(rule)
    out = study / "champion" if out is None else out
    _check_place(out)
    field = find(study, out)
    metric = primary_of(field, by)
    chosen_rule = asked_rule or FBeta(1.0 if metric == "f1" else 2.0)
    valid = open_valid(Run(Path(field.groups[0]["runs"][0])).load_config(), store)
    field.check(valid)
    say(f"1/5 rank {len(field.groups)} candidates by {metric} on {len(valid.labels)} valid patches")
    ranking, lost = rank(field, valid, metric, chosen_rule, replicates=_RANKING_REPLICATES, progress=progress)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        _check_place(out)
        selection = _selection(study, field.unfinished, [*field.left_out, *lost], ranking, metric, chosen_rule)
        begun = Run(Path(ranking[0].scores[0].run))
        valid = open_valid(begun.load_config(), store)  # with the winner's own groups
        _write_selection(out, selection, begun.load_config())
        wanted = new_seeds([s.seed for s in ranking[0].scores], seeds)
        say(f"2/5 retrain {begun.path} with seeds {', '.join(map(str, wanted))}")
        done = retrain(begun.config, wanted, out / "seeds", store=valid.store.path, progress=progress)
        if done["status"] == "stopped":
            return _stopped(done, out)
        judged = judge(out, wanted, valid, metric, chosen_rule, say)
        say("4/5 train and predict with the baselines, compare")
        others = opponents(out, ranking, judged.config, valid, wanted[0], progress)
        if isinstance(others, dict):
            return _stopped(others, out)
        say(f"5/5 freeze: {champion_json(out)}")
        return freeze(out, selection, ranking[0], judged, others, valid, metric, chosen_rule)


def _check_place(out: Path) -> None:
    """Refuse a folder that holds a frozen champion, or something else."""
    if is_champion(out):
        raise OutputError(
            f"{out} holds a frozen champion: it is never overwritten",
            valid="a new folder, or one in which the same command was stopped",
            next="give another --out",
        )
    if Run(out).evaluation("test").is_file():
        raise OutputError(
            f"the champion that was frozen in {out} has opened the test split, and its champion.json is gone",
            valid="its own champion.json, put back",
            next="give another --out: what is chosen after that look is another champion",
        )
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file", next="give a folder with --out")
    if (
        out.is_dir()
        and not (out / "selection.json").is_file()
        and any(p.name != ".lock" and not is_leftover(p) for p in out.iterdir())
    ):
        raise OutputError(f"{out} holds other files", next="give a new folder with --out")


def _selection(
    study: Path,
    unfinished: int,
    left_out: list[dict[str, str]],
    ranking: Sequence[Candidate],
    by: str,
    rule: Rule,
) -> dict[str, Any]:
    """How the winner was found, and among how many."""
    second = ranking[1] if len(ranking) > 1 else None
    return {
        "study": str(study.absolute()),
        "by": by,
        "rule": str(rule),
        "candidates": len(ranking),
        "runs": sum(len(candidate.scores) for candidate in ranking),
        "unfinished": unfinished,
        "left_out": left_out,
        "winner": ranking[0].as_json(),
        "runner_up": None if second is None else second.as_json(),
        "ranking": [candidate.as_json() for candidate in ranking],
    }


def _write_selection(out: Path, selection: dict[str, Any], config: Config) -> None:
    """Write selection.json, unless seeds of another winner stand there already."""
    path, digest = out / "selection.json", config_digest(config.model_copy(update={"seed": 0}))
    if path.is_file():
        before = read_json(path)
        for what in ("by", "rule"):
            if what in before and before[what] != selection[what]:
                raise OutputError(
                    f"{out} was begun with another {what}: {before[what]} there, {selection[what]} here",
                    valid="the same choice: another one is another champion",
                    next="give another --out",
                )
        if before.get("config_sha256") != digest:
            raise OutputError(
                f"{out} was begun with another winner ({before.get('winner', {}).get('config')}): runs were added or taken "
                "away since, or another score or rule is asked for",
                next="give another --out",
            )
    write_json(path, {**selection, "config_sha256": digest})


def _stopped(done: dict[str, Any], out: Path) -> dict[str, Any]:
    return {"status": "stopped", "out": str(out), **{key: done[key] for key in ("signal", "run", "epochs", "steps")}}
