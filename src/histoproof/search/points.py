"""Trials as points: each point has a place in the study's order, whichever trial numbers its tries have.

A killed trial is tried again under a new number. What the sampler and the pruner see is therefore a view in which every point
stands once, numbered by its place: the same for a study that was interrupted and one that was not.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .storage import STUDY_NAME

__all__ = ["POINT", "latest", "quiet", "view"]

POINT = "point"
"""User attribute: the place of a trial's point, from 0."""


def latest(trials: Sequence[Any]) -> dict[int, Any]:
    """{place: the last trial of that point}, in order."""
    found = {
        trial.user_attrs[POINT]: trial for trial in sorted(trials, key=lambda t: t.number) if POINT in trial.user_attrs
    }
    return dict(sorted(found.items()))


def view(trials: Sequence[Any], direction: Any, sampler: Any = None) -> Any:
    """A study in memory that holds each point once, numbered by its place, as its last trial left it."""
    import optuna
    from optuna.trial import TrialState, create_trial

    study = optuna.create_study(study_name=STUDY_NAME, direction=direction, sampler=sampler)
    for trial in latest(trials).values():
        waiting = trial.state == TrialState.WAITING
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING if waiting else trial.state,
                values=trial.values,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
                system_attrs=trial.system_attrs,
                intermediate_values=trial.intermediate_values,
            )
        )
    return study


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna warns that what we ask for is experimental: we know, and the versions are pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
