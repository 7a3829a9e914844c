"""Who works on what: workers that are seen to live or to have died, trials handed out one at a time, killed ones tried again.

Every change of hands happens under the study's lock. Each step leaves the journal so that a process killed after it does no
harm: the next one finds what was left and completes it.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import writing
from ..files import read_lines
from ..runs import Run, is_locked
from .points import POINT
from .propose import as_optuna, propose
from .space import distributions
from .spec import SpaceSpec
from .storage import STUDY_NAME
from .study import Study

__all__ = ["Queue", "finished", "working"]

_MOST_DEATHS = 3
_RETRIED_AS = "retried_as"
_RETRIED_FROM = "retried_from"


@contextmanager
def working(study: Study) -> Iterator[str]:
    """A worker's name, with a lock held for as long as it lives: workers/NAME in the study."""
    name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
    path = study.workers / name
    with writing(path):
        study.workers.mkdir(exist_ok=True)
        file: BinaryIO = path.open("wb")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield name
        path.unlink(missing_ok=True)


def finished(trial: Any) -> bool:
    """Whether a trial counts: complete, pruned, or failed by its own fault."""
    return trial.state.is_finished() and _RETRIED_AS not in trial.user_attrs


class Queue:
    """The trials of a study, as one worker sees them."""

    def __init__(self, study: Study, storage: Any, spec: SpaceSpec, direction: str, worker: str) -> None:
        import optuna

        self.study, self.storage, self.spec, self.direction, self.worker = study, storage, spec, direction, worker
        self.optuna = optuna.load_study(
            study_name=STUDY_NAME,
            storage=storage,
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
        )
        self._study_id = storage.get_study_id_from_name(STUDY_NAME)

    def trials(self) -> list[Any]:
        """All trials, in the order of their numbers. One that somebody else put into the journal has no point: it is let be."""
        found: list[Any] = self.storage.get_all_trials(self._study_id, deepcopy=False)
        return found

    def _ours(self) -> list[Any]:
        return [trial for trial in self.trials() if POINT in trial.user_attrs]

    def id_of(self, number: int) -> int:
        """What the storage calls a trial."""
        found: int = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return found

    def claim(self, wanted: int) -> Any:
        """The next trial to work on, marked as this worker's; None if `wanted` are finished or being worked on, or every
        point was tried."""
        from optuna.trial import TrialState

        with self.study.lock():
            self._reap()
            trials = self._ours()
            if sum(finished(t) or t.state == TrialState.RUNNING for t in trials) >= wanted:
                return None
            waiting = [t for t in trials if t.state == TrialState.WAITING]
            number = self._take(waiting[0]) if waiting else self._new()
            return None if number is None else self.trials()[number]

    def _take(self, trial: Any) -> int:
        from optuna.trial import TrialState

        number: int = trial.number
        self.note(number, "worker", self.worker)
        self.storage.set_trial_state_values(self.id_of(number), TrialState.RUNNING)
        return number

    def _new(self) -> int | None:
        from optuna.trial import TrialState, create_trial

        trials = self.trials()
        found = propose(self.spec, trials, self.direction)
        if found is None:
            return None
        point, attributes = found
        known = distributions(self.spec.space)
        place = sum(POINT in t.user_attrs and _RETRIED_FROM not in t.user_attrs for t in trials)
        self.optuna.add_trial(  # one line of the journal: there is no moment at which the trial is nobody's
            create_trial(
                state=TrialState.RUNNING,
                params=as_optuna(self.spec, point),
                distributions={key: known[key] for key in point},
                user_attrs={POINT: place, "worker": self.worker, **attributes},
            )
        )
        return len(trials)

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep something with a trial."""
        self.storage.set_trial_user_attr(self.id_of(number), key, value)

    def runs(self, number: int) -> bool:
        """Whether a trial is still being worked on, as far as the journal knows."""
        return bool(self.trials()[number].state.name == "RUNNING")

    def tell(self, number: int, state: Any, value: float | None = None) -> None:
        """A trial is over. A pruned one gets its last reported score, as Optuna has it."""
        self.optuna.tell(number, value, state=state)

    def _reap(self) -> None:
        """Queue again what dead workers left."""
        from optuna.trial import TrialState

        for trial in self._ours():
            if trial.state == TrialState.RUNNING and not self._lives(trial.user_attrs.get("worker")):
                if "pruned_at" in trial.user_attrs:
                    self.tell(trial.number, TrialState.PRUNED)
                else:
                    self.requeue(trial.number, "its worker died", death=True)

    def _lives(self, worker: str | None) -> bool:
        """Whether a worker holds its lock."""
        if worker is None or worker != Path(worker).name:
            return False
        if worker == self.worker:
            return True
        path = self.study.workers / worker
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        path.unlink(missing_ok=True)
        return False

    def requeue(self, number: int, why: str, *, death: bool = False) -> int | None:
        """Under the study's lock: end a trial, and let its point be tried again under a new number, in the same run folder.

        Returns the new number; None where it is no longer running, or its workers died too often without a new epoch: then it
        has failed.
        """
        from optuna.trial import TrialState, create_trial

        trial = self.trials()[number]
        if trial.state != TrialState.RUNNING:  # another process took us for dead
            return None
        epochs = _epochs(self.study.trial(number))
        further = epochs > trial.user_attrs.get("epochs_before", 0)
        deaths = (0 if further else trial.user_attrs.get("deaths", 0)) + death
        if deaths >= _MOST_DEATHS:
            self.note(number, "reason", f"its worker died {deaths} times without a new epoch; is the memory too small?")
            self.tell(number, TrialState.FAIL)
            return None
        again = next((t.number for t in self.trials() if t.user_attrs.get(_RETRIED_FROM) == number), None)
        if again is None:
            again = len(self.trials())
            kept = {k: v for k, v in trial.user_attrs.items() if k not in ("worker", "reason", "fresh")}
            self.optuna.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**kept, _RETRIED_FROM: number, "deaths": deaths, "epochs_before": epochs},
                    system_attrs=trial.system_attrs,
                    intermediate_values=trial.intermediate_values,
                )
            )
        self._hand_over(self.study.trial(number), self.study.trial(again))
        self.note(number, "reason", why)
        self.note(number, _RETRIED_AS, again)
        self.tell(number, TrialState.FAIL)
        return again

    @staticmethod
    def _hand_over(old: Path, new: Path) -> None:
        """Where the folder cannot be moved, or somebody still writes to it, the new trial starts anew."""
        if old.is_dir() and not new.exists() and not is_locked(old):
            with suppress(OSError):
                old.rename(new)


def _epochs(folder: Path) -> int:
    """Epochs that a run has behind it."""
    try:
        return sum(line.get("kind") == "epoch" for line in read_lines(Run(folder).metrics))
    except Exception:  # noqa: BLE001 (a damaged file says nothing; the run is looked at before it goes on)
        return 0
