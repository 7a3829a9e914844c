"""Who works on what: seeded points, no trial lost, none done twice, whoever is killed where. Scores are made up."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from histoproof.errors import RunError
from histoproof.runs import Run
from histoproof.search.points import latest
from histoproof.search.queue import Queue, finished, working
from histoproof.search.spec import SpaceSpec
from histoproof.search.storage import STUDY_NAME, FlockLock, mend, open_storage
from histoproof.search.study import Study
from histoproof.specfile import parse_spec

SPACE = {
    "optim.lr": {"low": 1e-4, "high": 0.1, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "optim.name": {"choices": ["sgd", "adamw"]},
    "optim.momentum": {"low": 0.1, "high": 0.9, "when": {"optim.name": "sgd"}},
    "train.batch_size": {"low": 16.0, "high": 64.0, "step": 16.0, "int": True},
}
SMALL = {"optim.name": {"choices": ["sgd", "adamw"]}, "train.batch_size": {"choices": [16, 32, 64]}}


def spec(sampler: str, space: dict[str, Any] = SPACE, **more: Any) -> SpaceSpec:
    return parse_spec({"space": space, "sampler": {"name": sampler, **more}}, SpaceSpec)


def new(path: Path) -> Study:
    (path / "workers").mkdir(parents=True)
    (path / "trials").mkdir()
    study = Study(path)
    optuna.create_study(study_name=STUDY_NAME, storage=open_storage(study.journal), direction="maximize")
    return study


@contextmanager
def worker(study: Study, wanted: SpaceSpec) -> Iterator[Queue]:
    with working(study) as name:
        yield Queue(study, open_storage(study.journal), wanted, "maximize", name)


def killed(study: Study, wanted: SpaceSpec, trials: int) -> Any:
    """A worker that claims a trial and is no more."""
    with working(study) as name:
        return Queue(study, open_storage(study.journal), wanted, "maximize", name).claim(trials)


def score(params: dict[str, Any]) -> float:
    far = abs(params.get("optim.lr", 0.01) - 0.01) + params.get("model.dropout", 0.0)
    return float(0.001 * params["train.batch_size"] - far)


def done(queue: Queue, trial: Any) -> None:
    with queue.study.lock():
        queue.tell(trial.number, TrialState.COMPLETE, score(trial.params))


def points(study: Study) -> list[dict[str, Any]]:
    storage = open_storage(study.journal)
    trials = storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))
    return [trial.params for trial in latest(trials).values()]


def alone(path: Path, wanted: SpaceSpec, trials: int) -> list[dict[str, Any]]:
    study = new(path)
    with worker(study, wanted) as queue:
        while (trial := queue.claim(trials)) is not None:
            done(queue, trial)
    return points(study)


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_random_and_grid_give_the_same_points_by_number_to_any_number_of_workers(sampler: str, tmp_path: Path) -> None:
    wanted = spec(sampler, SPACE if sampler == "random" else SMALL)
    expected = alone(tmp_path / "one", wanted, 6)
    study = new(tmp_path / "three")
    with worker(study, wanted) as a, worker(study, wanted) as b, worker(study, wanted) as c:
        first, second, third = a.claim(6), b.claim(6), c.claim(6)
        done(c, third)
        fourth = c.claim(6)
        done(a, first)
        fifth = a.claim(6)
        done(b, second)
        sixth = b.claim(6)
        for queue, trial in ((a, fifth), (b, sixth), (c, fourth)):
            assert queue.claim(6) is None
            done(queue, trial)
    assert points(study) == expected
    assert len({repr(p) for p in expected}) == 6


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "grid"])
def test_a_study_cut_off_anywhere_asks_the_points_of_one_that_was_not(sampler: str, tmp_path: Path) -> None:
    wanted = spec(sampler, SMALL if sampler == "grid" else SPACE, startup=4)
    n = 6 if sampler == "grid" else 22
    expected = alone(tmp_path / "whole", wanted, n)
    study = new(tmp_path / "cut")
    for turn in range(4 * n):
        if turn % 3 == 1:
            killed(study, wanted, n)
            continue
        with worker(study, wanted) as queue:
            trial = queue.claim(n)
            if trial is None:
                break
            done(queue, trial)
    assert points(study) == expected


def test_another_seed_gives_other_points_and_tpe_learns(tmp_path: Path) -> None:
    one = alone(tmp_path / "a", spec("tpe"), 30)
    other = alone(tmp_path / "b", spec("tpe").model_copy(update={"seed": 7}), 3)
    assert one[:3] != other
    early, late = ([score(p) for p in part] for part in (one[:10], one[20:]))
    assert sum(late) / len(late) > sum(early) / len(early)


def test_cma_es_narrows_down(tmp_path: Path) -> None:
    found = alone(tmp_path / "a", spec("cmaes"), 60)
    early, late = ([score(p) for p in part] for part in (found[:12], found[48:]))
    assert sum(late) / len(late) > sum(early) / len(early)


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_no_point_is_asked_twice_and_a_small_space_ends(sampler: str, tmp_path: Path) -> None:
    found = alone(tmp_path / "a", spec(sampler, SMALL), 50)
    assert len(found) == 6
    assert len({repr(sorted(p.items())) for p in found}) == 6


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["claim", "finish", "die", "stop"]), max_size=30), st.integers(1, 5))
def test_whatever_workers_do_no_more_than_n_trials_finish_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str], n: int
) -> None:
    study = new(tmp_path_factory.mktemp("study") / "s")
    wanted = spec("random")
    with worker(study, wanted) as queue:
        mine: list[Any] = []
        for act in acts:
            if act == "claim" and (trial := queue.claim(n)) is not None:
                mine.append(trial)
            elif act == "finish" and mine:
                done(queue, mine.pop(0))
            elif act == "die":
                killed(study, wanted, n)
            elif act == "stop" and mine:
                with study.lock():
                    queue.requeue(mine.pop().number, "stopped")
            states = [t.state for t in queue.trials()]
            assert sum(map(finished, queue.trials())) + len(mine) <= n
            assert states.count(TrialState.RUNNING) <= n
        for trial in mine:
            done(queue, trial)
        while (trial := queue.claim(n)) is not None:
            done(queue, trial)
        trials = queue.trials()
    assert sum(map(finished, trials)) == n
    assert [p for p in latest(trials)] == list(range(n))  # noqa: C416 (the keys)
    assert len({t.user_attrs["retried_from"] for t in trials if "retried_from" in t.user_attrs}) == sum(
        "retried_as" in t.user_attrs for t in trials
    )


@pytest.mark.parametrize("lines", range(7))
def test_a_worker_killed_while_it_takes_over_a_dead_ones_trial_loses_nothing(lines: int, tmp_path: Path) -> None:
    """Killed after each line of the journal that the take-over writes, in turn."""
    study, wanted = new(tmp_path / "s"), spec("random")
    lost = killed(study, wanted, 2)
    folder = Run(study.trial(lost.number)).path
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("here")

    class Killed(BaseException):
        pass

    with pytest.raises(Killed) if lines < 6 else pytest.MonkeyPatch.context(), working(study) as name:
        queue = Queue(study, open_storage(study.journal), wanted, "maximize", name)
        backend = queue.storage._backend
        write, left = backend.append_logs, [lines]

        def append(logs: Any) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            write(logs)

        backend.append_logs = append
        queue.claim(2)
    with worker(study, wanted) as queue:
        taken = []
        while (trial := queue.claim(2)) is not None:
            taken.append(trial)
            done(queue, trial)
        trials = queue.trials()
    assert len(taken) == 2
    assert taken[0].params == lost.params
    assert sum(map(finished, trials)) == 2
    assert [t.params for t in latest(trials).values()] == [t.params for t in taken]
    assert (study.trial(taken[0].number) / "config.yaml").read_text() == "here"
    assert not folder.exists()


def test_a_point_whose_workers_always_die_fails_and_says_so(tmp_path: Path) -> None:
    study, wanted = new(tmp_path / "s"), spec("random")
    for _ in range(3):
        killed(study, wanted, 1)
    with worker(study, wanted) as queue:
        assert queue.claim(1) is None
        last = queue.trials()[-1]
    assert finished(last)
    assert last.user_attrs["reason"].startswith("its worker died 3 times without a new epoch")


def test_deaths_after_new_epochs_are_no_fault_of_the_trial(tmp_path: Path) -> None:
    study, wanted = new(tmp_path / "s"), spec("random")
    for epoch in range(1, 6):
        trial = killed(study, wanted, 1)
        folder = study.trial(trial.number)
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text('{"kind":"epoch"}\n' * epoch)
    with worker(study, wanted) as queue:
        trial = queue.claim(1)
        assert (trial.number, trial.user_attrs["point"]) == (5, 0)


def test_a_pruned_trial_whose_worker_died_before_it_told_is_pruned(tmp_path: Path) -> None:
    study, wanted = new(tmp_path / "s"), spec("random")
    with working(study) as name:
        queue = Queue(study, open_storage(study.journal), wanted, "maximize", name)
        trial = queue.claim(1)
        queue.storage.set_trial_intermediate_value(queue.id_of(trial.number), 1, 0.6)
        queue.note(trial.number, "pruned_at", 1)
    with worker(study, wanted) as queue:
        assert queue.claim(1) is None
        (trial,) = queue.trials()
    assert (trial.state, trial.value) == (TrialState.PRUNED, 0.6)


def test_a_worker_taken_for_dead_does_not_tell_of_a_trial_that_is_anothers(tmp_path: Path) -> None:
    study, wanted = new(tmp_path / "s"), spec("random")
    with worker(study, wanted) as slow, worker(study, wanted) as quick:
        trial = slow.claim(1)
        (study.workers / slow.worker).unlink()  # as where a file system shows no locks of other hosts
        again = quick.claim(1)
        assert again.user_attrs["retried_from"] == trial.number
        assert not slow.runs(trial.number)
        with study.lock():
            assert slow.requeue(trial.number, "stopped") is None
        done(quick, again)
        assert len(quick.trials()) == 2


def test_a_trial_that_somebody_put_into_the_journal_is_let_be(tmp_path: Path) -> None:
    study, wanted = new(tmp_path / "s"), spec("random")
    expected = alone(tmp_path / "other", wanted, 3)
    foreign = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(study.journal))
    foreign.enqueue_trial({"optim.lr": 0.05})
    foreign.tell(foreign.ask({"x": optuna.distributions.FloatDistribution(0, 1)}).number, 0.5)
    with worker(study, wanted) as queue:
        while (trial := queue.claim(3)) is not None:
            done(queue, trial)
        assert sum(map(finished, queue.trials())) == 4
    assert points(study) == expected


def test_a_journal_torn_at_any_byte_is_mended_and_goes_on(tmp_path: Path) -> None:
    study, wanted = new(tmp_path / "s"), spec("random")
    with worker(study, wanted) as queue:
        done(queue, queue.claim(1))
    whole = study.journal.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        study.journal.write_bytes(whole[:cut])
        JournalStorage(JournalFileBackend(str(study.journal))).get_all_studies()  # Optuna itself reads past a torn line
        assert mend(study.journal) == cut - start
        assert study.journal.read_bytes() == whole[:start]
    with worker(study, wanted) as queue:  # what was lost is that the trial was told: it is tried again
        trial = queue.claim(1)
        assert trial.user_attrs["retried_from"] == 0
        done(queue, trial)
        assert queue.claim(1) is None


def test_a_line_torn_while_others_work_is_cut_before_the_next_one(tmp_path: Path) -> None:
    study, wanted = new(tmp_path / "s"), spec("random")
    with worker(study, wanted) as queue:
        trial = queue.claim(1)
        with study.journal.open("ab") as file:
            file.write(b'{"op_code":7,"wor')
        done(queue, trial)
    assert points(study) == [trial.params]
    assert mend(study.journal) == 0


@pytest.mark.parametrize("garbage", [b"\0" * 40 + b"\n", b"{]\n", b"[]\n", b"{}x\n" * 3])
def test_garbage_at_the_end_is_cut_and_garbage_within_is_named(garbage: bytes, tmp_path: Path) -> None:
    study = new(tmp_path / "s")
    whole = study.journal.read_bytes()
    study.journal.write_bytes(whole + garbage)
    assert mend(study.journal) == len(garbage)
    assert study.journal.read_bytes() == whole
    study.journal.write_bytes(whole + garbage + whole)
    with pytest.raises(RunError, match=r"journal\.log:2: not a line of a journal"):
        mend(study.journal)


def test_a_process_killed_while_it_holds_the_journals_lock_blocks_nobody(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom histoproof.search.storage import FlockLock\n"
        "FlockLock(Path(sys.argv[1])).acquire()\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(journal)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        os.kill(holder.pid, signal.SIGKILL)
    lock = FlockLock(journal)
    assert lock.acquire()
    lock.release()
