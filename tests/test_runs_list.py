"""The list of runs: every run is in it, whatever its state; what was asked for and nothing else; seeds of one config together."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoproof.data.pack import pack
from histoproof.data.synth import synth
from histoproof.errors import ConfigError, RunError
from histoproof.files import read_json, write_json
from histoproof.runs import is_locked, locked, runs
from histoproof.runs.seeds import spread
from histoproof.runs.table import shown
from histoproof.seeds import train_seeds
from histoproof.train import train

CONFIG = """
data: {store: STORE}
model: {name: mlp, hidden: [4]}
optim: {lr: 0.01}
train: {epochs: 2, batch_size: 32}
evaluate: {bootstrap: 100}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config on 64 + 32 synthetic patches."""
    folder = tmp_path_factory.mktemp("tiny")
    synth(folder / "official", train=64, valid=32, test=0, seed=5)
    pack(folder / "official", folder / "store")
    (folder / "base.yaml").write_text(CONFIG.replace("STORE", str(folder / "store")))
    return folder / "base.yaml"


@pytest.fixture(scope="session")
def some(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one config, one of them twice, and two other runs deeper down."""
    folder = tmp_path_factory.mktemp("some") / "runs"
    train_seeds(tiny, [1, 2, 3], out=folder / "base")
    train(tiny, ["seed=2"], out=folder / "again")
    train(tiny, ["optim.lr=0.1", "optim.name=adamw"], out=folder / "deeper" / "down" / "other")
    train(tiny, ["model.hidden=[8, 4]", "evaluate.primary=auc"], out=folder / "deeper" / "wide")
    return folder


def names(result: dict[str, Any]) -> list[str]:
    return [row["name"] for row in result["runs"]]


def test_every_run_at_any_depth_is_listed_with_its_config_and_scores(some: Path) -> None:
    result = runs(some)
    assert names(result) == ["again", "base-seed1", "base-seed2", "base-seed3", "other", "wide"]
    assert {row["status"] for row in result["runs"]} == {"finished"}
    other = next(row for row in result["runs"] if row["name"] == "other")
    summary = read_json(some / "deeper" / "down" / "other" / "summary.json")
    assert (other["config"]["optim.lr"], other["seed"], other["primary"]) == (0.1, 42, "f2")
    assert other["best"]["valid"] == summary["best"]["valid"]
    assert other["trail_sha256"] == summary["trail_sha256"]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (["optim.lr=0.1"], ["other"]),
        (["optim.lr=1e-1"], ["other"]),
        (["optim.lr<0.1", "seed>=3"], ["base-seed3", "wide"]),
        (["model.hidden=[8, 4]"], ["wide"]),
        (["optim.name!=sgd"], ["other"]),
        (["name=again"], ["again"]),
        (["auc<=1", "primary=auc"], ["wide"]),
        (["status=damaged"], []),
    ],
)
def test_where_keeps_the_runs_for_which_it_holds(some: Path, where: list[str], wanted: list[str]) -> None:
    result = runs(some, where=where)
    assert names(result) == wanted
    assert result["found"] == 6


def test_a_score_filters_and_sorts_by_its_value(some: Path) -> None:
    every = {row["name"]: row["best"]["valid"]["auc"] for row in runs(some)["runs"]}
    middle = statistics.median(every.values())
    assert set(names(runs(some, where=[f"auc>{middle!r}"]))) == {name for name, auc in every.items() if auc > middle}
    falling = [every[name] for name in names(runs(some, sort="-valid.auc"))]
    assert falling == sorted(every.values(), reverse=True)
    assert names(runs(some, sort="seed"))[0] == "base-seed1"


@pytest.mark.parametrize(
    ("where", "says"), [("lr=1", "optim.lr"), ("auk>0", "auc"), ("auc", "KEY=VALUE"), ("auc>high", "number")]
)
def test_a_condition_that_makes_no_sense_is_refused_with_what_would(some: Path, where: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        runs(some, where=[where])


def test_seeds_of_one_config_stand_together_and_a_seed_counts_once(some: Path) -> None:
    groups = {group["runs"][0].rpartition("/")[2]: group for group in runs(some)["groups"]}
    assert len(groups) == 3
    base = groups["base-seed1"]
    assert base["seeds"] == [1, 2, 3]
    left_out = [out["run"].rpartition("/")[2] for out in base["left_out"]]
    assert len(left_out) == 1
    assert "bit for bit" in base["left_out"][0]["why"]
    auc = [read_json(Path(run) / "summary.json")["best"]["valid"]["auc"] for run in base["runs"]]
    found = base["scores"]["auc"]
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(statistics.fmean(auc), abs=1e-12)
    assert found["sd"] == pytest.approx(statistics.stdev(auc), abs=1e-12)
    assert found["high"] - found["mean"] == pytest.approx(4.302652729911275 * found["sd"] / 3**0.5, rel=1e-9)
    alone = groups["wide"]["scores"]["auc"]
    assert (alone["n"], alone["sd"], alone["low"]) == (1, None, None)
    assert "one seed" in alone["why"]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_the_interval_is_scipys_and_holds_the_mean(values: list[float]) -> None:
    from scipy import stats  # type: ignore[import-untyped, unused-ignore]

    found = spread(values)
    assert found["low"] <= found["mean"] <= found["high"]
    if found["sd"] > 1e-6:
        error = found["sd"] / len(values) ** 0.5
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found["mean"], scale=error)
        assert (found["low"], found["high"]) == (pytest.approx(low, abs=1e-7), pytest.approx(high, abs=1e-7))


def test_a_score_that_is_undefined_in_a_run_is_left_out_and_said() -> None:
    found = spread([0.5, None, 0.7])
    assert (found["n"], found["mean"]) == (2, pytest.approx(0.6))
    assert "1 of 3" in found["why"]
    assert spread([None])["mean"] is None


def test_damage_is_named_and_hides_no_other_run(tiny: Path, tmp_path: Path) -> None:
    harm: dict[str, Callable[[Path], object]] = {
        "a-config": lambda run: (run / "config.yaml").write_text("{{{"),
        "b-summary": lambda run: (run / "summary.json").write_text('{"status": "fini'),
        "c-no-config": lambda run: (run / "config.yaml").unlink(),
        "d-trail": lambda run: (run / "trail.jsonl").write_bytes((run / "trail.jsonl").read_bytes()[:-200]),
        "e-foreign": lambda run: write_json(run / "summary.json", ["no summary"]),
        "f-binary": lambda run: (run / "environment.json").write_bytes(b"\xff\xfe\x00"),
    }
    for name, change in harm.items():
        train(tiny, ["train.epochs=1"], out=tmp_path / "runs" / name)
        change(tmp_path / "runs" / name)
    train(tiny, ["train.epochs=1"], out=tmp_path / "runs" / "g-whole")
    (tmp_path / "runs" / "no-run").mkdir()
    result = runs(tmp_path / "runs")
    assert names(result) == [*harm, "g-whole"]
    assert [row["status"] for row in result["runs"]] == [*["damaged"] * len(harm), "finished"]
    assert all(row["problem"] for row in result["runs"][:-1])
    text = shown(result, terminal=False)
    assert all(f"damaged: {tmp_path}/runs/{name}: " in text for name in harm)
    assert runs(tmp_path / "runs", sort="auc")["runs"][0]["name"] == "g-whole"


def test_unfinished_and_running_are_told_apart_by_the_lock(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    whole = train(tiny, out=run)
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind":"epoch","torn')
    row = runs(tmp_path)["runs"][0]
    assert (row["status"], row["epochs"], row["steps"]) == ("unfinished", 2, whole["steps"])
    assert row["best"]["valid"] == whole["best"]["valid"]
    with locked(run):
        assert runs(tmp_path)["runs"][0]["status"] == "running"
    assert runs(tmp_path)["groups"] == []
    assert not is_locked(run)


def test_looking_does_not_disturb_the_writer(tiny: Path, tmp_path: Path) -> None:
    """Whoever asks for the lock does not keep a training from getting it."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()
    asking = subprocess.Popen(
        [sys.executable, "-c", f"from histoproof.runs import is_locked\nfrom pathlib import Path\n"
         f"print(flush=True)\nwhile True: is_locked(Path({str(run)!r}))"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert asking.stdout is not None
        asking.stdout.readline()
        for _ in range(300):
            with locked(run):
                pass
    finally:
        asking.kill()
        asking.communicate()


def test_a_folder_without_runs_and_no_folder_are_two_things(tmp_path: Path) -> None:
    assert "no runs in" in shown(runs(tmp_path), terminal=False)
    with pytest.raises(RunError, match="no such folder"):
        runs(tmp_path / "nowhere")


def test_a_link_to_a_run_is_followed_and_a_circle_is_not(some: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(some / "again")
    (tmp_path / "round").symlink_to(tmp_path)
    assert names(runs(tmp_path)) == ["linked"]


def test_the_table_says_on_a_terminal_what_it_says_in_a_file(some: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    result = runs(some)
    plain = shown(result, terminal=False)
    rich = shown(result, terminal=True, width=300)
    assert "\x1b[" in rich
    assert "\x1b[" not in plain
    for row in result["runs"]:
        assert f"{row['best']['valid']['auc']:.4f}" in plain
        assert f"{row['best']['valid']['auc']:.4f}" in rich
    assert "model.hidden" in plain.splitlines()[0]  # the runs differ in it


def test_seeds_go_on_where_they_were(tiny: Path, tmp_path: Path) -> None:
    """A seed that is finished is skipped, one that was stopped goes on, and the same bits come out as without all that."""
    whole = train_seeds(tiny, [1, 2, 3], out=tmp_path / "whole")
    assert [row["was"] for row in whole["runs"]] == ["trained"] * 3
    assert [Path(row["run"]).name for row in whole["runs"]] == ["whole-seed1", "whole-seed2", "whole-seed3"]

    def stop_in_the_second(done: int, total: int, words: str = "") -> None:
        if (tmp_path / "cut-seed2").exists() and done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    cut = train_seeds(tiny, [1, 2, 3], out=tmp_path / "cut", progress=stop_in_the_second)
    assert (cut["status"], cut["signal"], cut["seeds"], cut["scores"]["auc"]["n"]) == ("stopped", "SIGTERM", [1], 1)
    assert not (tmp_path / "cut-seed3").exists()
    again = train_seeds(tiny, [1, 2, 3], out=tmp_path / "cut")
    assert [row["was"] for row in again["runs"]] == ["skipped", "resumed", "trained"]
    assert [row["trail_sha256"] for row in again["runs"]] == [row["trail_sha256"] for row in whole["runs"]]
    assert again["scores"] == whole["scores"]
    group = next(group for group in runs(tmp_path, where=["name!=none"])["groups"])
    assert group["scores"] == whole["scores"]  # the list says what the training said


def test_a_folder_of_another_config_does_not_stand_for_a_seed(tiny: Path, tmp_path: Path) -> None:
    train_seeds(tiny, [1], out=tmp_path / "base")
    with pytest.raises(RunError, match="another config"):
        train_seeds(tiny, [2, 1], ["optim.lr=0.5"], out=tmp_path / "base")
    assert not (tmp_path / "base-seed2").exists()  # found before anything was trained
    with pytest.raises(ConfigError, match="each once"):
        train_seeds(tiny, [1, 1], out=tmp_path / "base")


def test_the_program_lists_and_trains_seeds(tiny: Path, tmp_path: Path) -> None:
    def histoproof(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "histoproof", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    trained = histoproof("train", tiny, "--seeds", "7,8", "--json")
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert [row["run"] for row in result["runs"]] == ["runs/base-seed7-001", "runs/base-seed8-001"]
    listed = histoproof("runs", "--json")
    assert [row["seed"] for row in json.loads(listed.stdout)["runs"]] == [7, 8]
    assert json.loads(listed.stdout)["groups"][0]["scores"] == result["scores"]
    words = histoproof("runs", "runs", "--where", "seed=8", "--sort", "-auc")
    assert (words.returncode, words.stderr) == (0, "")
    assert "base-seed8-001" in words.stdout
    assert "base-seed7-001" not in words.stdout
    for wrong in (["--seeds", "a"], ["--seeds", "1", "--set", "seed=2"]):
        refused = histoproof("train", tiny, *wrong)
        assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)


@pytest.mark.slow
def test_64_runs_by_8_processes_into_one_folder_are_64_and_none_is_torn(tiny: Path, tmp_path: Path) -> None:
    """While they are written the list is read all the time: it never fails, never loses a run it has seen, disturbs nobody."""
    code = (
        "from pathlib import Path\nfrom histoproof.train import train\nimport sys\n"
        "for _ in range(8): train(Path(sys.argv[1]), ['train.epochs=1', f'seed={sys.argv[2]}', 'train.workers=1'])"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tiny), str(n)], cwd=tmp_path, stderr=subprocess.PIPE)
        for n in range(8)
    ]
    seen: set[str] = set()
    try:
        while any(writer.poll() is None for writer in writers):
            if (tmp_path / "runs").is_dir():
                rows = runs(tmp_path / "runs")["runs"]
                assert not [row["problem"] for row in rows if row["status"] == "damaged"]
                now = {row["run"] for row in rows}
                assert seen <= now
                seen = now
            time.sleep(0.2)
    finally:
        for writer in writers:
            writer.kill()
        said = [writer.communicate()[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 8, said
    done = subprocess.run(
        [sys.executable, "-m", "histoproof", "runs", "--json"], cwd=tmp_path, capture_output=True, check=True
    )
    listed = json.loads(done.stdout)
    assert len(listed["runs"]) == 64
    assert {row["status"] for row in listed["runs"]} == {"finished"}
    assert [len(group["seeds"]) for group in listed["groups"]] == [8]
    assert sum(len(group["left_out"]) for group in listed["groups"]) == 56
