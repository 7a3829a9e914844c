"""A search: its study folder, who may join, what becomes of trials that fail, are pruned, stopped or killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from histoproof.data.pack import pack
from histoproof.data.synth import synth
from histoproof.errors import ConfigError, HistoproofError, OutputError, RunError
from histoproof.files import read_lines
from histoproof.journal.evidence.dose import is_dose
from histoproof.runs import Run
from histoproof.runs.listing import run_folders
from histoproof.search import search, words
from histoproof.train import resume, train

from .test_cli import histoproof

CONFIG = """
data: {store: STORE}
model: {name: mlp, hidden: [8]}
optim: {lr: 0.01}
train: {epochs: 3, batch_size: 32, shards: 2, workers: 1}
evaluate: {bootstrap: 100}
"""
SPACE = """
space:
  optim.lr: {low: 1e-4, high: 0.1, log: true}
  optim.name: {choices: [sgd, adamw]}
  optim.momentum: {low: 0.5, high: 0.95, when: {optim.name: sgd}}
  model.hidden: {choices: [[8], [16, 8]]}
pruner: {name: median, startup: 3}
"""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds: figures are drawn where they are looked at."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("histoproof.search.figures.draw", lambda *_: None)


@pytest.fixture
def drawn() -> None:
    """For tests that look at figures."""


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 64 + 32 synthetic patches."""
    folder = tmp_path_factory.mktemp("little")
    synth(folder / "official", train=64, valid=32, test=0, seed=3)
    pack(folder / "official", folder / "store")
    return folder / "store"


def written(folder: Path, store: Path, config: str, space: str) -> tuple[Path, Path]:
    """The two files of a search."""
    paths = folder / "c.yaml", folder / "space.yaml"
    paths[0].write_text(config.replace("STORE", str(store)))
    paths[1].write_text(space)
    return paths


def reader(study: Path) -> Callable[[], list[Any]]:
    """Reads a study as a stranger would, with Optuna alone; no trials where there is no study yet."""

    def read() -> list[Any]:
        if not (study / "study.json").exists():
            return []
        storage = JournalStorage(JournalFileBackend(str(study / "journal.log")))
        return optuna.load_study(study_name="histoproof", storage=storage).get_trials(deepcopy=False)

    return read


def made(folder: Path, store: Path, trials: int, *, config: str = CONFIG, space: str = SPACE, **more: Any) -> Any:
    return search(*written(folder, store, config, space), trials, folder / "study", **more)


def test_a_study_is_plain_files_and_goes_on(drawn: None, little: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = made(tmp_path, little, 4, say=said.append)
    study = tmp_path / "study"
    assert (first["status"], first["counts"]["finished"], len(first["trials"])) == ("finished", 4, 4)
    assert len(said) == 4
    result = made(tmp_path, little, 8, say=said.append)
    assert result["counts"]["finished"] == 8
    assert [row["number"] for row in result["trials"]] == list(range(8))
    assert result["trials"][:4] == first["trials"]
    assert json.loads((study / "search.json").read_text()) == json.loads(json.dumps(result))
    best = result["best"]
    for row in result["trials"]:
        run = Run(study / row["run"])
        assert run.path.name == f"{row['number']:04d}"
        assert ("optim.momentum" in row["params"]) == (row["params"]["optim.name"] == "sgd")
        config = run.load_config()
        assert (config.optim.lr, config.as_dict()["model"]["hidden"]) == (
            row["params"]["optim.lr"],
            row["params"]["model.hidden"],
        )
        epochs = {line["epoch"]: line["valid"]["auc"] for line in read_lines(run.metrics) if line["kind"] == "epoch"}
        assert {int(epoch): value for epoch, value in row["intermediate"].items()} == epochs
        if row["state"] == "complete":
            assert row["value"] == run.load_summary()["best"]["valid"]["auc"] <= best["value"]
        else:
            assert row["state"] == "pruned"
            assert (row["epochs"], row["value"]) == (max(epochs), epochs[max(epochs)])
            assert not run.finished
    for name in ("history", "parallel", "importances", "slices"):
        assert (study / "figures" / f"{name}.svg").read_text().startswith("<svg")
        assert (study / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(result["figures"]) == 8
    assert list((study / "workers").iterdir()) == []
    assert len(reader(study)()) == 8
    assert not is_dose(study)  # whose study.json is another
    with pytest.raises(RunError, match="is a study, not a run"):
        resume(study)
    assert len(list(run_folders(study))) == 8
    assert any(f"{best['value']:.4f}  trial {best['number']:04d}" in line for line in words(result))
    assert made(tmp_path, little, 5)["counts"]["finished"] == 8  # enough there already: nothing is trained


def test_a_pruned_run_is_unfinished_and_can_be_finished_to_the_bits_it_would_have_had(
    little: Path, tmp_path: Path
) -> None:
    config, _ = written(tmp_path, little, CONFIG, SPACE)
    asked = []

    def judge(epoch: int, valid: dict[str, Any]) -> bool:
        asked.append((epoch, valid["auc"], (tmp_path / "cut" / "checkpoints" / "last.safetensors").exists()))
        return epoch == 2

    cut = train(config, out=tmp_path / "cut", judge=judge)
    assert cut == {"run": str(tmp_path / "cut"), "status": "pruned", "epochs": 2, "steps": 4}
    assert [(epoch, there) for epoch, _, there in asked] == [(1, True), (2, True)]
    run = Run(tmp_path / "cut")
    assert read_lines(run.events)[-1]["event"] == "pruned"
    assert not run.finished
    whole = train(config, out=tmp_path / "whole", judge=lambda epoch, _: epoch == 3)  # nothing is left to be ended
    finished = resume(run.path)
    assert whole["status"] == "finished"
    assert finished["weights_sha256"] == whole["weights_sha256"]
    assert finished["trail_sha256"] == whole["trail_sha256"]


def test_a_training_that_diverges_has_failed_counts_and_is_said(little: Path, tmp_path: Path) -> None:
    space = "space:\n  optim.lr: {choices: [10.0, 0.01]}\nsampler: {name: grid}\n"
    config = CONFIG.replace("lr: 0.01", "lr: 0.01, max_grad_norm: null, momentum: 0.99")
    config = config.replace("hidden: [8]", "hidden: [64, 64, 64]").replace("epochs: 3", "epochs: 20")
    result = made(tmp_path, little, 5, config=config, space=space)
    assert result["counts"] == {
        "finished": 2,
        "complete": 1,
        "pruned": 0,
        "failed": 1,
        "retried": 0,
        "running": 0,
        "waiting": 0,
    }
    failed = next(row for row in result["trials"] if row["state"] == "failed")
    assert failed["params"] == {"optim.lr": 10.0}
    assert "diverged" in failed["reason"]
    assert failed["value"] is None
    assert any("failed: trial" in line and "diverged" in line for line in words(result))
    assert result["status"] == "finished"  # the grid holds two points


def test_who_means_another_study_may_not_join(little: Path, store: Path, tmp_path: Path) -> None:
    made(tmp_path, little, 1)
    before = (tmp_path / "study" / "journal.log").read_bytes()
    for change, told in (
        ({"config": CONFIG.replace("epochs: 3", "epochs: 4")}, "train.epochs is 3 there, 4 here"),
        ({"space": SPACE.replace("0.1,", "0.2,")}, "space.optim.lr.high is 0.1 there, 0.2 here"),
        ({"space": SPACE + "sampler: {name: random}\n"}, 'sampler.name is "tpe" there, "random" here'),
        ({"space": SPACE + "metric: nll\n"}, 'direction is "maximize" there, "minimize" here'),
    ):
        with pytest.raises(RunError) as error:
            made(tmp_path, little, 2, **change)
        assert told in str(error.value)
    with pytest.raises(RunError, match="store_sha256 is"):
        made(tmp_path, store, 2)
    assert (tmp_path / "study" / "journal.log").read_bytes() == before
    # what changes no result may differ, and so may the name of the config
    made(tmp_path, little, 2, config=CONFIG.replace("workers: 1", "workers: 2").replace("lr: 0.01", "lr: 0.02"))


def test_a_folder_of_something_else_is_left_alone(little: Path, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        made(tmp_path, little, 1)
    assert [p.name for p in (tmp_path / "study").iterdir() if p.name != ".lock"] == ["notes.txt"]


def test_a_studys_config_may_not_be_changed_under_it(little: Path, tmp_path: Path) -> None:
    made(tmp_path, little, 1)
    config = tmp_path / "study" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 3", "epochs: 2"))
    with pytest.raises(RunError, match=r"config\.yaml was changed since the study began"):
        made(tmp_path, little, 2)


def test_a_study_that_lost_its_journal_says_so(little: Path, tmp_path: Path) -> None:
    made(tmp_path, little, 1)
    (tmp_path / "study" / "journal.log").unlink()
    with pytest.raises(RunError, match=r"journal\.log is missing"):
        made(tmp_path, little, 2)


def test_what_a_killed_first_process_left_is_no_obstacle(little: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    (study / "config.yaml").write_text("torn: [")
    (study / "journal.log").write_bytes(b'{"op_code":0,"wor')
    assert made(tmp_path, little, 1)["counts"]["finished"] == 1


def waited(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_a_trial_cut_off_goes_on_from_its_checkpoint_to_the_same_bits(
    number: signal.Signals, little: Path, tmp_path: Path
) -> None:
    long = CONFIG.replace("epochs: 3", "epochs: 20")
    config, space = written(tmp_path, little, long, SPACE)
    study = tmp_path / "study"
    command = [sys.executable, "-m", "histoproof", "search", str(config), "--space", str(space)]
    process = subprocess.Popen(
        [*command, "--trials", "1", "--out", str(study)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = Run(study / "trials" / "0000").metrics
    waited(lambda: sum(line["kind"] == "epoch" for line in read_lines(metrics)) >= 2, process)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped by SIGINT; the same command goes on" in out
    result = made(tmp_path, little, 1, config=long)
    assert [row["state"] for row in result["trials"]] == ["retried", "complete"]
    old, again = result["trials"]
    assert (old["retried_as"], old["run"], again["retried_from"]) == (1, None, 0)
    assert old["params"] == again["params"]
    assert sorted(map(int, again["intermediate"])) == list(range(1, 21))
    run = Run(study / again["run"])
    starts = [line["step"] for line in read_lines(run.events) if line["event"] == "start"]
    assert len(starts) == 2
    assert starts[1] > 0
    twin = train(run.config, out=tmp_path / "twin")
    assert twin["trail_sha256"] == run.load_summary()["trail_sha256"]


def test_a_folder_that_cannot_be_gone_on_with_is_set_aside_and_the_trial_begun_anew(
    little: Path, tmp_path: Path
) -> None:
    made(tmp_path, little, 1)
    study = tmp_path / "study"
    lines = (study / "journal.log").read_bytes().splitlines(keepends=True)
    (study / "journal.log").write_bytes(b"".join(lines[:2]))  # as if killed right after asking
    run = Run(study / "trials" / "0000")
    run.summary.unlink()
    (run.checkpoints / "last.safetensors").write_bytes(b"no checkpoint")
    result = made(tmp_path, little, 1)
    assert [row["state"] for row in result["trials"]] == ["retried", "complete"]
    assert sorted(path.name for path in (study / "trials").iterdir()) == [".0001.unusable-1", "0001"]


def test_a_finished_run_whose_end_was_not_told_is_not_trained_again(little: Path, tmp_path: Path) -> None:
    first = made(tmp_path, little, 1)
    study = tmp_path / "study"
    lines = (study / "journal.log").read_bytes().splitlines(keepends=True)
    (study / "journal.log").write_bytes(b"".join(lines[:2]))
    before = Run(study / "trials" / "0000").summary.read_bytes()
    result = made(tmp_path, little, 1)
    assert result["trials"][1]["value"] == first["best"]["value"]
    assert result["trials"][1]["intermediate"] == first["trials"][0]["intermediate"]
    assert Run(study / "trials" / "0001").summary.read_bytes() == before


def test_a_journal_that_contradicts_the_runs_is_told_and_an_empty_one_refused(little: Path, tmp_path: Path) -> None:
    first = made(tmp_path, little, 2)
    assert first["problems"] == []
    study = tmp_path / "study"
    text = (study / "journal.log").read_text()
    value = str(first["best"]["value"])
    assert value in text
    (study / "journal.log").write_text(text.replace(value, "0.999"))
    again = made(tmp_path, little, 2)
    assert any(f"0.999 in the journal, its summary.json says {value}" in problem for problem in again["problems"])
    (study / "journal.log").write_text("garbage")
    with pytest.raises(RunError, match="holds no line of a journal"):
        made(tmp_path, little, 2)


def test_the_command(little: Path, tmp_path: Path) -> None:
    config, space = written(tmp_path, little, CONFIG, SPACE)
    arguments = ("search", config, "--space", space, "--trials", 1, "--out", tmp_path / "s", "--set", "train.epochs=1")
    done = histoproof(*arguments, "--json")
    assert (done.returncode, json.loads(done.stdout)["counts"]["finished"]) == (0, 1)
    assert done.stderr.count("\n") == 1
    wrong = histoproof("search", config, "--space", space, "--trials", 2, "--out", tmp_path / "s")
    assert wrong.returncode == 2
    assert "train.epochs is 1 there, 3 here" in wrong.stderr


@pytest.mark.parametrize("trials", [0, -1])
def test_trials_are_at_least_one(little: Path, tmp_path: Path, trials: int) -> None:
    with pytest.raises(ConfigError, match="from 1"):
        made(tmp_path, little, trials)
    assert not (tmp_path / "study").exists()


def test_a_place_that_cannot_be_written_to_is_said(
    little: Path, tmp_path: Path, mounted: Callable[[str], Path]
) -> None:
    folder = mounted("ro")
    with pytest.raises(HistoproofError, match="read-only"):
        search(*written(tmp_path, little, CONFIG, SPACE), 1, folder / "study")
