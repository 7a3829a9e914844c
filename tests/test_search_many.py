"""Many processes, one study; many processes, one folder of runs: nothing torn, nothing twice, whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from histoproof.data.pack import pack
from histoproof.data.synth import synth
from histoproof.files import read_lines
from histoproof.runs import Run

from .test_search import CONFIG, SPACE, reader, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 64 + 32 synthetic patches."""
    folder = tmp_path_factory.mktemp("tiny")
    synth(folder / "official", train=64, valid=32, test=0, seed=3)
    pack(folder / "official", folder / "store")
    return folder / "store"


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "histoproof", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_sixty_trials_by_two_processes_one_of_them_killed_and_restarted(tiny: Path, tmp_path: Path) -> None:
    config, space = written(tmp_path, tiny, CONFIG.replace("epochs: 3", "epochs: 5"), SPACE)
    study = tmp_path / "a study"
    arguments = ("search", config, "--space", space, "--trials", 60, "--out", study)
    first, second = started(*arguments), started(*arguments)
    read = reader(study)
    deadline = time.monotonic() + 600
    mine = None
    while mine is None:
        assert time.monotonic() < deadline
        assert second.poll() is None
        if sum(trial.state.is_finished() for trial in read()) >= 20 and working_on(study, second.pid) is not None:
            os.kill(second.pid, signal.SIGSTOP)  # so that it is killed in the midst of this trial, and not just after
            mine = working_on(study, second.pid)
            os.kill(second.pid, signal.SIGKILL if mine is not None else signal.SIGCONT)
        time.sleep(0.01)
    second.communicate()
    third = started(*arguments)
    while first.poll() is None or third.poll() is None:
        read()
        time.sleep(0.05)
    outputs = [process.communicate() for process in (first, third)]
    assert [first.returncode, third.returncode] == [0, 0], outputs

    result = json.loads((study / "search.json").read_text())
    rows = result["trials"]
    assert result["status"] == "finished"
    assert [row["number"] for row in rows] == list(range(len(rows)))
    done = [row for row in rows if row["state"] in ("complete", "pruned")]
    assert len(done) == 60
    assert sorted(row["point"] for row in done) == list(range(60))
    retried = [row for row in rows if row["state"] == "retried"]
    assert mine in {row["number"] for row in retried}
    for row in retried:
        again = rows[row["retried_as"]]
        assert (again["retried_from"], again["point"], again["params"]) == (row["number"], row["point"], row["params"])
    assert {row["number"] for row in done} == {int(Path(row["run"]).name) for row in done}
    listed = as_json("runs", study / "trials")
    assert len(listed["runs"]) == 60
    assert {row["status"] for row in listed["runs"]} <= {"finished", "unfinished"}
    assert len({json.dumps(row["params"], sort_keys=True) for row in done}) == 60
    assert len({row["worker"] for row in done}) >= 2


def working_on(study: Path, pid: int) -> int | None:
    """The number of the trial that a process is training, once a checkpoint of it is written. Not one that is to be pruned: its
    end is decided, and another process tells it."""
    for trial in reader(study)():
        name = trial.user_attrs.get("worker", "")
        if trial.state.name == "RUNNING" and f"-{pid}-" in name and "pruned_at" not in trial.user_attrs:
            run = Run(study / "trials" / f"{trial.number:04d}")
            if (run.checkpoints / "last.safetensors").exists() and not run.finished:
                return int(trial.number)
    return None


def test_64_runs_by_8_processes_into_one_folder(tiny: Path, tmp_path: Path) -> None:
    config, _ = written(tmp_path, tiny, CONFIG, SPACE)
    code = (
        "import sys\nfrom pathlib import Path\nfrom histoproof.train import train\n"
        "for seed in range(8):\n"
        "    train(Path(sys.argv[1]), ['train.epochs=1', f'seed={int(sys.argv[2]) * 8 + seed}'])\n"
    )
    folder = tmp_path / "work"
    folder.mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(config), str(n)], cwd=folder, stderr=subprocess.PIPE)
        for n in range(8)
    ]
    told = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, told
    listed = as_json("runs", folder / "runs")
    assert len(listed["runs"]) == 64
    assert {row["status"] for row in listed["runs"]} == {"finished"}
    assert {row["seed"] for row in listed["runs"]} == set(range(64))
    for row in listed["runs"]:
        run = Run(Path(row["run"]))
        for path in (run.metrics, run.trail, run.events):
            assert path.read_bytes().endswith(b"\n")
            assert read_lines(path)


def as_json(*arguments: object) -> Any:
    process = started(*arguments, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def test_a_process_that_is_ended_again_and_again_makes_the_study_of_one_that_is_not(tiny: Path, tmp_path: Path) -> None:
    config, space = written(tmp_path, tiny, CONFIG, SPACE)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ("search", config, "--space", space, "--trials", 6, "--out")
    first = started(*arguments, whole)
    first.communicate(timeout=300)
    assert first.returncode == 0
    for turn in range(20):
        process = started(*arguments, cut)
        before = lines(cut)
        while process.poll() is None and lines(cut) < before + 7 + turn:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[turn % 3])
        process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode in (-signal.SIGKILL, 130, 143), process.returncode
    assert process.returncode == 0
    assert turn >= 3
    one, other = (json.loads((study / "search.json").read_text()) for study in (whole, cut))
    assert points(one) == points(other)
    assert [row["state"] for row in other["trials"]].count("retried") > 0
    for row in one["trials"]:
        twin = next(r for r in other["trials"] if r["point"] == row["point"] and r["state"] != "retried")
        trails = [(study / r["run"] / "trail.jsonl").read_bytes() for study, r in ((whole, row), (cut, twin))]
        assert trails[0] == trails[1]


def lines(study: Path) -> int:
    """Lines of a study's journal."""
    journal = study / "journal.log"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def points(result: dict[str, Any]) -> list[Any]:
    done = [row for row in result["trials"] if row["state"] != "retried"]
    keys = ("point", "state", "params", "value", "epochs", "intermediate")
    return sorted(([row[key] for key in keys] for row in done), key=lambda row: row[0])
