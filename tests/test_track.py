"""Runs copied to a real MLflow server, to SQLite and to TensorBoard: nothing lost, nothing twice, whatever was killed."""

import json
import math
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoproof.data.pack import pack
from histoproof.data.synth import synth
from histoproof.errors import OutputError
from histoproof.files import JsonLines, read_json, read_lines, write_json
from histoproof.predict import predict
from histoproof.runs import runs
from histoproof.track import track
from histoproof.track.live import Live
from histoproof.train import resume, train

from .conftest import lacking

pytestmark = [
    pytest.mark.track,
    pytest.mark.filterwarnings("default"),
]  # MLflow and what it imports warn of their own affairs

CONFIG = """
data: {store: STORE}
model: {name: mlp, hidden: [8]}
optim: {lr: 0.01}
train: {epochs: 3, batch_size: 8}
evaluate: {bootstrap: 100}
"""


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    for name in ("mlflow", "tensorboard"):
        if find_spec(name) is None:
            lacking(f"{name} is not installed: make test-track")


@pytest.fixture(autouse=True)
def no_tracker_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config on 64 + 32 synthetic patches: 8 steps an epoch."""
    folder = tmp_path_factory.mktemp("tracked")
    synth(folder / "official", train=64, valid=32, test=0, seed=5)
    pack(folder / "official", folder / "store")
    (folder / "base.yaml").write_text(CONFIG.replace("STORE", str(folder / "store")))
    return folder / "base.yaml"


@pytest.fixture(scope="session")
def finished(base: Path) -> Path:
    """A finished run; copy it before harming it."""
    run = base.parent / "finished"
    train(base, out=run)
    return run


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """A run whose metrics are ours to write: 60 steps of any doubles there are, and nulls."""
    run = tmp_path / "unfinished"
    shutil.copytree(finished, run)
    (run / "summary.json").unlink()
    (run / "metrics.jsonl").unlink()
    write_lines(run, range(60))
    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """A SQLite database with MLflow's tables and nothing in them, to be copied: making one takes seconds."""
    from histoproof.track.mlflow import _client

    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    _client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(made: Path, tmp_path: Path) -> str:
    shutil.copyfile(made, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@contextmanager
def serving(database: Path, port: int | None = None) -> Iterator[str]:
    """A real MLflow server on loopback, which serves the artifacts too; gone afterwards, with all its processes."""
    if port is None:
        port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--serve-artifacts"]
    command += ["--artifacts-destination", str(database.parent / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (database.parent / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, (database.parent / "server.log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(made, folder / "mlflow.db")
    with serving(folder / "mlflow.db") as url:
        yield url


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def write_lines(run: Path, steps: range, seed: int = 1) -> None:
    """Append lines of steps, the values any doubles there are; null now and then, as where a norm was not finite."""
    bits = random.Random(seed)

    def double() -> float | None:
        while True:
            (value,) = struct.unpack("<d", bits.randbytes(8))
            if math.isfinite(value):
                return float(value)

    file = JsonLines(run / "metrics.jsonl")
    for step in steps:
        norm = None if step % 7 == 3 else double()
        file.append(
            {"kind": "step", "step": step, "epoch": 1 + step // 20, "loss": double(), "grad_norm": norm, "lr": 1e-3}
        )
        if step % 20 == 19:
            valid = {"loss": double(), "auc": None if step == 39 else 5e-324}
            file.append(
                {"kind": "epoch", "epoch": 1 + step // 20, "step": step + 1, "train": {"loss": 0.1}, "valid": valid}
            )
    file.close()


def client(uri: str) -> Any:
    from histoproof.track.mlflow import _client

    return _client(uri)


def expected(run: Path) -> dict[str, list[tuple[int, float | None]]]:
    """The curves as metrics.jsonl tells them, written out here once more."""
    curves: dict[str, list[tuple[int, float | None]]] = {}
    for line in read_lines(run / "metrics.jsonl"):
        flat = {f"train/{k}": v for k, v in line.get("train", {}).items()}
        flat |= {f"valid/{k}": v for k, v in line.get("valid", {}).items()}
        flat |= {k: v for k, v in line.items() if k not in ("kind", "step", "train", "valid")}
        for key, value in flat.items():
            curves.setdefault(f"{line['kind']}/{key}", []).append((line["step"], value))
    return curves


def history(uri: str, run_id: str) -> dict[str, list[tuple[int, float | None]]]:
    """The curves as the API gives them back; NaN is what a null became."""
    api = client(uri)
    keys = [key for key in api.get_run(run_id).data.metrics if not key.startswith("best/")]
    return {
        key: sorted(
            ((m.step, None if math.isnan(m.value) else m.value) for m in api.get_metric_history(run_id, key)),
            key=lambda point: point[0],
        )
        for key in keys
    }


def rows(database: str, table: str) -> int:
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    try:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])
    finally:
        connection.close()


def python(code: str, *arguments: object, cwd: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_three_runs_over_http_read_back_to_the_last_digit(
    base: Path, server: str, unfinished: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "runs" / f"seed{seed}" for seed in (1, 2, 3)]
    for seed, folder in enumerate(folders, start=1):
        train(base, [f"seed={seed}"], out=folder)
    done = track([*folders, unfinished], to="mlflow", uri=server, experiment="three")
    assert done["problems"] == []
    for folder, report in zip([*folders, unfinished], done["runs"], strict=True):
        assert history(server, report["id"]) == expected(folder)  # exact: no tolerance
        assert report["added"]["metrics"] >= sum(map(len, expected(folder).values()))
    assert [report["complete"] for report in done["runs"]] == [True, True, True, False]
    command = [sys.executable, "-m", "histoproof", "track", *map(str, [*folders, unfinished]), "--to", "mlflow"]
    said = subprocess.run(
        [*command, "--uri", server, "--experiment", "three", "--json"], capture_output=True, check=True
    )
    again = json.loads(said.stdout)  # one document, whatever MLflow would like to print
    assert [report["id"] for report in again["runs"]] == [report["id"] for report in done["runs"]]
    assert not any(sum(report["added"].values()) for report in again["runs"])


def test_a_copy_holds_config_scores_tags_files_and_status(finished: Path, server: str, tmp_path: Path) -> None:
    report = track([finished], to="mlflow", uri=server, experiment="whole")["runs"][0]
    copy = client(server).get_run(report["id"])
    summary = read_json(finished / "summary.json")
    assert (copy.info.status, copy.info.run_name) == ("FINISHED", "finished")
    assert copy.data.params["optim.lr"] == "0.01"
    assert copy.data.params["model.hidden"] == "[8]"
    assert copy.data.tags["histoproof.trail_sha256"] == summary["trail_sha256"]
    assert copy.data.metrics["best/auc"] == summary["best"]["intervals"]["auc"]["value"]
    assert copy.data.metrics["best/auc_low"] == summary["best"]["intervals"]["auc"]["low"]
    back = Path(client(server).download_artifacts(report["id"], "", str(tmp_path)))
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "trail.jsonl", "events.jsonl", "summary.json",
                 "checkpoints/best.safetensors", "predictions/valid.npz", "evaluations/valid.json"):  # fmt: skip
        assert (back / name).read_bytes() == (finished / name).read_bytes(), name
    assert not (back / "checkpoints" / "last.safetensors").exists()


def test_the_model_has_a_signature_predicts_the_same_bits_and_is_no_pickle(
    finished: Path, base: Path, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    report = track([finished], to="mlflow", uri=database)["runs"][0]
    found = client(database).search_logged_models(["1"])
    assert [model.source_run_id for model in found] == [report["id"]]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    model = mlflow.pyfunc.load_model(f"models:/{found[0].model_id}")
    signature = model.metadata.signature
    assert signature.inputs.inputs[0].type == np.uint8
    assert signature.inputs.inputs[0].shape == (-1, 96, 96, 3)
    patches = np.load(base.parent / "store" / "valid" / "images.npy")
    ours = predict(finished, [base.parent / "official" / "camelyonpatch_level_2_split_valid_x.h5"])
    assert model.predict(patches).tolist() == [row["tumor_probability"] for row in ours]
    files = [path for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert path.suffix not in (".pkl", ".pickle", ".pt", ".pth", ".bin")
        assert path.read_bytes()[:1] != b"\x80", path  # how a pickle begins
    assert runs(tmp_path)["runs"] == []  # copies are not listed as runs


def test_a_second_track_adds_nothing_anywhere(finished: Path, unfinished: Path, database: str, tmp_path: Path) -> None:
    track([finished, unfinished], to="mlflow", uri=database)
    tables = ("runs", "metrics", "params", "tags", "logged_models", "experiments")
    before = [rows(database, table) for table in tables]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "mlartifacts").rglob("*")}
    moved = tmp_path / "elsewhere" / "finished"
    shutil.copytree(finished, moved)
    track([moved, unfinished], to="mlflow", uri=database)  # a run that was moved is still that run
    track([finished], to="mlflow", uri=database)
    assert [rows(database, table) for table in tables] == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mlartifacts").rglob("*")} == files
    write_json(finished / "evaluations" / "extra.json", {"new": True})
    try:
        assert track([finished], to="mlflow", uri=database)["runs"][0]["added"]["files"] == 1  # only what is new
    finally:
        (finished / "evaluations" / "extra.json").unlink()


KILLED = """
import os, sys
from pathlib import Path
import mlflow
from histoproof.track import mlflow as ours, track
ours._MOST_METRICS = 50
call, when, left = sys.argv[3], sys.argv[4], int(sys.argv[5])
real = getattr(mlflow.MlflowClient, call)
def counted(*arguments, **options):
    global left
    left -= 1
    if left < 0 and when == "before": os._exit(9)
    found = real(*arguments, **options)
    if left < 0: os._exit(9)
    return found
setattr(mlflow.MlflowClient, call, counted)
track([Path(sys.argv[1])], to="mlflow", uri=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("call", "when", "after"),
    [
        ("create_run", "after", 0),
        ("log_batch", "before", 5),
        ("log_batch", "after", 6),
        ("log_artifact", "after", 4),
        ("create_logged_model", "after", 0),
        ("finalize_logged_model", "before", 0),
    ],
)
def test_killed_midway_it_goes_on_and_nothing_is_there_twice(
    call: str, when: str, after: int, finished: Path, database: str, tmp_path: Path
) -> None:
    killed = python(KILLED, finished, database, call, when, after, cwd=tmp_path)
    _, errors = killed.communicate()
    assert killed.returncode == 9, errors.decode()
    report = track([finished], to="mlflow", uri=database)["runs"][0]
    assert report["complete"]
    assert history(database, report["id"]) == expected(finished)
    points = sum(map(len, expected(finished).values()))
    best = sum(1 for key in client(database).get_run(report["id"]).data.metrics if key.startswith("best/"))
    assert rows(database, "metrics") == points + best
    assert (rows(database, "runs"), rows(database, "logged_models")) == (1, 1)
    assert client(database).search_logged_models(["1"])[0].status == "READY"
    assert sum(track([finished], to="mlflow", uri=database)["runs"][0]["added"].values()) == 0


def test_a_run_tracked_unfinished_is_completed_later(base: Path, database: str, tmp_path: Path) -> None:
    def stop(done: int, total: int, words: str = "") -> None:
        if done == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(base, out=tmp_path / "run", progress=stop)["status"] == "stopped"
    first = track([tmp_path / "run"], to="mlflow", uri=database)["runs"][0]
    assert (first["state"], first["complete"]) == ("unfinished", False)
    assert client(database).get_run(first["id"]).info.status == "KILLED"
    assert history(database, first["id"]) == expected(tmp_path / "run")
    resume(tmp_path / "run")
    second = track([tmp_path / "run"], to="mlflow", uri=database)["runs"][0]
    assert (second["id"], second["complete"], second["superseded"]) == (first["id"], True, None)
    assert client(database).get_run(first["id"]).info.status == "FINISHED"
    assert history(database, first["id"]) == expected(tmp_path / "run")


def test_a_run_that_went_back_and_on_with_the_same_bits_is_the_same_copy(unfinished: Path, database: str) -> None:
    whole = (unfinished / "metrics.jsonl").read_bytes()
    first = track([unfinished], to="mlflow", uri=database)["runs"][0]
    (unfinished / "metrics.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:40]))
    back = track([unfinished], to="mlflow", uri=database)["runs"][0]
    assert (back["behind"], back["added"]["metrics"], back["superseded"]) == (True, 0, None)
    (unfinished / "metrics.jsonl").write_bytes(whole)
    write_lines(unfinished, range(60, 65))
    last = track([unfinished], to="mlflow", uri=database)["runs"][0]
    assert (last["id"], last["behind"], last["added"]["metrics"]) == (first["id"], False, 20)
    assert history(database, first["id"]) == expected(unfinished)


def test_a_run_that_went_on_with_other_bits_gets_a_new_copy_and_the_old_one_says_so(
    unfinished: Path, database: str
) -> None:
    whole = (unfinished / "metrics.jsonl").read_bytes()
    first = track([unfinished], to="mlflow", uri=database)["runs"][0]
    (unfinished / "metrics.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:42]))
    write_lines(unfinished, range(40, 80), seed=2)
    second = track([unfinished], to="mlflow", uri=database)["runs"][0]
    assert second["superseded"] == first["id"] != second["id"]
    assert history(database, second["id"]) == expected(unfinished)
    old = client(database).get_run(first["id"])
    assert (old.info.lifecycle_stage, old.data.tags["histoproof.superseded_by"]) == ("deleted", second["id"])
    assert sum(track([unfinished], to="mlflow", uri=database)["runs"][0]["added"].values()) == 0


def test_many_processes_may_make_one_sqlite_database_at_once(base: Path, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        train(base, [f"seed={seed}", "train.epochs=1"], out=tmp_path / "runs" / f"seed{seed}")
    code = "import sys\nfrom pathlib import Path\nfrom histoproof.track import track\ntrack([Path(sys.argv[1])], to='mlflow')"
    processes = [python(code, f"runs/seed{seed}", cwd=tmp_path) for seed in (1, 2, 3)]
    said = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    database = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    assert rows(database, "runs") == 3
    assert (tmp_path / "runs" / "mlartifacts").is_dir()  # beside the database, wherever one is
    assert not (tmp_path / "mlruns").exists()


def test_a_damaged_run_is_named_and_the_others_are_copied(finished: Path, database: str, tmp_path: Path) -> None:
    harmed = tmp_path / "harmed"
    shutil.copytree(finished, harmed)
    (harmed / "trail.jsonl").write_bytes((harmed / "trail.jsonl").read_bytes()[:-150])
    done = track([tmp_path / "nowhere", harmed, finished], to="mlflow", uri=database)
    assert [Path(problem["run"]).name for problem in done["problems"]] == ["nowhere", "harmed"]
    assert [report["complete"] for report in done["runs"]] == [True]


def test_a_long_value_is_cut_with_a_word(finished: Path, database: str, tmp_path: Path) -> None:
    run = tmp_path / "long"
    shutil.copytree(finished, run)
    text = (run / "config.yaml").read_text().replace("csv: null", "csv: " + "x" * 9000)
    (run / "config.yaml").write_text(text)
    report = track([run], to="mlflow", uri=database)["runs"][0]
    value = client(database).get_run(report["id"]).data.params["evaluate.groups.csv"]
    assert len(value) == 6000
    assert value.endswith("(9000 characters; whole in config.yaml)")


def test_training_with_a_live_server_changes_no_bit_and_ends_with_a_whole_copy(
    base: Path, server: str, tmp_path: Path
) -> None:
    plain = train(base, out=tmp_path / "plain")
    done = trained(base, tmp_path / "live", server)
    assert (done["weights_sha256"], done["trail_sha256"]) == (plain["weights_sha256"], plain["trail_sha256"])
    assert (tmp_path / "live" / "metrics.jsonl").read_bytes() == (tmp_path / "plain" / "metrics.jsonl").read_bytes()
    (report,) = done["tracking"]
    assert report["warning"] is None
    assert report["ok"]
    assert history(server, report["id"]) == expected(tmp_path / "live")
    assert client(server).get_run(report["id"]).info.status == "FINISHED"
    assert sum(track([tmp_path / "live"], to="mlflow", uri=server)["runs"][0]["added"].values()) == 0


def test_points_arrive_while_training_goes_on(base: Path, server: str, tmp_path: Path) -> None:
    """Training waits, at its twelfth step, until the server shows steps of it."""
    shown: list[Any] = []

    def wait(done: int, total: int, words: str = "") -> None:
        give_up = time.monotonic() + 120
        while done == 12 and not shown and time.monotonic() < give_up:
            time.sleep(0.2)
            experiment = client(server).get_experiment_by_name("live")
            found = client(server).search_runs([experiment.experiment_id]) if experiment else []
            shown.extend(copy for copy in found if "step/loss" in copy.data.metrics)

    live = Live("mlflow", server, "live")
    train(base, out=tmp_path / "run", progress=wait, watch=live.watch)
    assert [copy.info.status for copy in shown] == ["RUNNING"]
    assert history(server, shown[0].info.run_id) == expected(tmp_path / "run")
    assert live.reports[0]["ok"]
    assert client(server).get_run(shown[0].info.run_id).info.status == "FINISHED"


def test_a_server_killed_while_training_costs_a_warning_and_track_completes_it(
    base: Path, made: Path, tmp_path: Path
) -> None:
    shutil.copyfile(made, tmp_path / "mlflow.db")
    database, port = f"sqlite:///{tmp_path / 'mlflow.db'}", free_port()
    with ExitStack() as stack:
        url = stack.enter_context(serving(tmp_path / "mlflow.db", port))

        def kill_it(done: int, total: int, words: str = "") -> None:
            give_up = time.monotonic() + 120
            while done == 12 and rows(database, "metrics") == 0 and time.monotonic() < give_up:
                time.sleep(0.2)
            if done == 12:
                stack.close()

        live = Live("mlflow", url)
        result = train(base, out=tmp_path / "run", progress=kill_it, watch=live.watch)
    assert result["status"] == "finished"
    assert result["trail_sha256"] == train(base, out=tmp_path / "plain")["trail_sha256"]
    before = rows(database, "metrics")
    assert 0 < before < sum(map(len, expected(tmp_path / "run").values()))
    (report,) = live.reports
    assert not report["ok"]
    warnings = [line["text"] for line in read_lines(tmp_path / "run" / "events.jsonl") if line["event"] == "warning"]
    assert warnings == [report["warning"]]
    assert f"histoproof track {tmp_path}/run --to mlflow --uri {url}" in warnings[0]
    with serving(tmp_path / "mlflow.db", port) as url:
        completed = track([tmp_path / "run"], to="mlflow", uri=url)["runs"][0]
        assert completed["complete"]
        assert history(url, completed["id"]) == expected(tmp_path / "run")
    assert rows(database, "runs") == 1


def test_a_training_killed_outright_leaves_no_process_and_its_copy_says_so(
    base: Path, database: str, tmp_path: Path
) -> None:
    process = start(base, tmp_path / "run", database, "train.epochs=100000")
    try:
        give_up = time.monotonic() + 120
        while rows(database, "metrics") == 0 and time.monotonic() < give_up:
            time.sleep(0.2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.kill()
        process.communicate()
    assert children
    give_up = time.monotonic() + 60
    while any(alive(pid) for pid in children) and time.monotonic() < give_up:
        time.sleep(0.2)
    assert not any(alive(pid) for pid in children)
    (copy,) = client(database).search_runs(["1"])
    assert copy.info.status == "KILLED"
    assert history(database, copy.info.run_id) == expected(tmp_path / "run")


def alive(pid: str) -> bool:
    """Whether a process still runs; one that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_that_was_never_there_costs_a_warning(base: Path, database: str, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = trained(base, tmp_path / "run", nowhere)
    assert done["status"] == "finished"
    assert "does not answer" in done["tracking"][0]["warning"]
    assert read_json(tmp_path / "run" / "summary.json")["warnings"] == done["warnings"]
    with pytest.raises(OutputError, match="does not answer"):
        track([tmp_path / "run"], to="mlflow", uri=nowhere)
    assert track([tmp_path / "run"], to="mlflow", uri=database)["runs"][0]["complete"]


def start(base: Path, run: Path, uri: str, *sets: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "histoproof", "train", str(base), "--out", str(run), "--json"]
    command += ["--track", "mlflow", "--track-uri", uri, *(f"--set={one}" for one in sets)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def trained(base: Path, run: Path, uri: str) -> dict[str, Any]:
    process = start(base, run, uri)
    out, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return dict(json.loads(out))


def scalars(folder: Path) -> dict[str, list[tuple[int, float | None]]]:
    """Every scalar in a folder of event files, as TensorBoard's own reader gives it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    reader.Reload()
    found: dict[str, list[tuple[int, float | None]]] = {}
    for tag in reader.Tags()["tensors"]:
        if reader.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            values = [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in reader.Tensors(tag)]
            found[tag] = [(step, None if math.isnan(value) else value) for step, value in values]
    return found


def curves(folder: Path) -> dict[str, list[tuple[int, float | None]]]:
    return {tag: points for tag, points in scalars(folder).items() if not tag.startswith("best/")}


def test_tensorboard_reads_back_every_double(finished: Path, unfinished: Path, tmp_path: Path) -> None:
    done = track([finished, unfinished], to="tensorboard", uri=str(tmp_path / "logs"))
    assert done["problems"] == []
    for run, report in zip((finished, unfinished), done["runs"], strict=True):
        assert curves(Path(report["id"])) == expected(run)
    auc = read_json(finished / "summary.json")["best"]["intervals"]["auc"]
    assert scalars(Path(done["runs"][0]["id"]))["best/auc"][0][1] == auc["value"]
    files = sorted((tmp_path / "logs").rglob("*"))
    again = track([finished, unfinished], to="tensorboard", uri=str(tmp_path / "logs"))
    assert not any(sum(report["added"].values()) for report in again["runs"])
    assert sorted((tmp_path / "logs").rglob("*")) == files


def test_tensorboard_gets_only_what_is_new_and_unlearns_what_is_no_longer_so(unfinished: Path, tmp_path: Path) -> None:
    logs = str(tmp_path / "logs")
    whole = (unfinished / "metrics.jsonl").read_bytes()
    folder = Path(track([unfinished], to="tensorboard", uri=logs)["runs"][0]["id"])
    write_lines(unfinished, range(60, 65))
    assert track([unfinished], to="tensorboard", uri=logs)["runs"][0]["added"] == {"metrics": 20, "files": 1}
    (folder / ".writing-killed").mkdir()
    shutil.copyfile(next(folder.glob("events*")), folder / ".writing-killed" / "events.out.tfevents.1")
    (unfinished / "metrics.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:42]))
    assert track([unfinished], to="tensorboard", uri=logs)["runs"][0]["behind"]
    write_lines(unfinished, range(40, 80), seed=2)
    report = track([unfinished], to="tensorboard", uri=logs)["runs"][0]
    assert (report["id"], report["removed"]) == (str(folder), 2)
    assert curves(folder) == expected(unfinished)
    assert not (folder / ".writing-killed").exists()


def test_two_runs_of_one_name_get_two_folders(finished: Path, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "finished"
    train(base, ["seed=9"], out=other)
    done = track([finished, other, finished], to="tensorboard", uri=str(tmp_path / "logs"))
    assert [Path(report["id"]).name for report in done["runs"]] == ["finished", "finished-2", "finished"]
    assert curves(tmp_path / "logs" / "finished-2") == expected(other)


def test_tensorboard_follows_training(base: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "histoproof",
        "train",
        str(base),
        "--seeds",
        "1,2",
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    done = subprocess.run([*command, "--track", "tensorboard"], capture_output=True, check=True)
    assert [report["ok"] for report in json.loads(done.stdout)["tracking"]] == [True, True]
    for seed in (1, 2):
        assert curves(tmp_path / "tensorboard" / f"run-seed{seed}") == expected(tmp_path / f"run-seed{seed}")


def test_a_test_here_can_fail(finished: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were values rounded to float32 on the way, the histories would not be equal."""
    from histoproof.track import content

    real: Callable[[dict[str, Any]], list[content.Point]] = content._points

    def rounded(line: dict[str, Any]) -> list[content.Point]:
        return [content.Point(p.key, float(np.float32(p.value)), p.step) for p in real(line)]

    monkeypatch.setattr(content, "_points", rounded)
    report = track([finished], to="mlflow", uri=database)["runs"][0]
    assert history(database, report["id"]) != expected(finished)
