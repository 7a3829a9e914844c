"""Search: a study of many trainings over a space of config keys, which any number of processes join, leave and take up again."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import write_json
from ..runs import locked
from ..signals import StopRequest
from .check import check_space_on
from .queue import Queue, working
from .rows import best_of, contradictions, counts, importances, rows, trial_words, words
from .space import size
from .spec import SpaceSpec, read_space
from .storage import open_storage
from .study import Study, enter, facts_of
from .trial import work

__all__ = ["search", "words"]


def search(
    config: Path,
    space: Path,
    trials: int,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Search `space` over `config` until the study in `out` holds `trials` finished trials, whichever processes made them.

    Begins the study, or joins it: the same call in several processes shares the work, and goes on after a stop or a kill. Each
    trial is a run in OUT/trials. `say` gets a line a trial, `progress` the steps of the training under way.

    Writes OUT/search.json and returns it: {"status": "finished", "incomplete" (others still train, or every point was tried)
    or "stopped" (with "signal"), "study", "metric", "direction", "sampler", "pruner", "seed", "trials_wanted", "counts",
    "best": a row or null, "importances", "trials": rows (see `rows.rows`), "problems": where trials and their
    runs contradict each other, "figures", "why"}.

    Raises ConfigError for a config or space that makes no sense, before anything is trained; RunError where `out` is another
    study; DataError, OutputError.
    """
    if trials < 1:
        raise ConfigError(f"trials = {trials}", valid="a whole number from 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "search does not run under torchrun: each trial is trained by one process",
            next="start the same command several times; the processes share the study",
        )
    spec, lines = read_space(space)
    setup = check_space_on(config, overrides, space, spec, lines)
    facts = facts_of(setup, spec)
    study, cut = enter(out, setup.config, space, facts)
    if cut:
        say(f"the journal's end was torn (a writer was killed): {cut} bytes were cut")
    if (most := size(spec, trials)) is not None and most < trials:
        say(f"the space holds {most} points: there will be {most} trials, not {trials}")
    storage = open_storage(study.journal)
    with StopRequest() as stop, working(study) as worker:
        queue = Queue(study, storage, spec, facts["direction"], worker)
        signal = None
        while not stop.requested and (trial := queue.claim(trials)) is not None:
            outcome = work(queue, trial, setup.config, stop, progress)
            table = rows(study, queue.trials(), spec)
            best = best_of(table, spec.metric)
            row = next(row for row in table if row["number"] == trial.number)
            say(trial_words(row, spec.metric, best[0] if best else None))
            if outcome.state == "stopped":
                signal = outcome.signal
                break
        return _conclude(study, queue, spec, facts, trials, signal or stop.name)


def _conclude(
    study: Study, queue: Queue, spec: SpaceSpec, facts: dict[str, Any], wanted: int, signal: str | None
) -> dict[str, Any]:
    """Write the result. Under a lock of its own, so that the last process's is the last word."""
    from .figures import draw

    with study.lock():
        study.figures.mkdir(exist_ok=True)
    with locked(study.figures, wait_s=300):
        with study.lock():
            trials = queue.trials()
            table = rows(study, trials, spec)
        found = counts(table)
        possible = size(spec, wanted)
        status, why = "finished", None
        if signal is not None:
            status = "stopped"
        elif found["finished"] < min(wanted, wanted if possible is None else possible):
            status = "incomplete"
            why = f"{found['running']} trials are being trained by other processes; the last to end completes the study"
        ranked = best_of(table, spec.metric)
        result = {
            "status": status,
            "study": str(study.path),
            **{key: facts[key] for key in ("metric", "direction", "sampler", "pruner", "seed", "space")},
            "trials_wanted": wanted,
            "counts": found,
            "best": ranked[0] if ranked else None,
            "importances": importances(trials, spec, facts["direction"]),
            "trials": table,
            "problems": contradictions(study, table, spec.metric),
            "why": why,
            **({"signal": signal} if signal else {}),
        }
        if signal is None:  # who is told to stop has seconds, not time to draw
            draw(study.figures, result)
        result["figures"] = sorted(f"{study.figures.name}/{p.name}" for p in study.figures.glob("[!.]*.???"))
        write_json(study.result, result)
    return result
