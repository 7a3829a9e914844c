"""A run copied to MLflow: parameters, every point of its curves, tags, files, and the model with its signature.

How it can be stopped anywhere and go on: the MLflow run carries how much of metrics.jsonl it holds (tag `histoproof.sent`: bytes,
and the digest up to there) and what is on its way (`histoproof.sending`). A point sent twice is one point, because its time is a
function of its step. Where metrics.jsonl is no longer what was sent (the run went back to a checkpoint and went on with other
bits), MLflow cannot unlearn it: that copy is marked and deleted there, and a new one made.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError, HistoproofError, OutputError
from ..files import canonical, write_json
from ..runs import Run, locked
from . import content

__all__ = ["check_uri", "default_uri", "sync", "without_password"]

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_MOST_METRICS = 1000
_MOST_PARAMS = 100
_LONGEST_PARAM = 6000
_LONGEST_TAG = 5000
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing leaves the machine but for the server that was named
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7 let a dead server cost minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is ours
    "MLFLOW_UV_AUTO_DETECT": "false",  # a model must not take up the lock file of the folder one happens to be in
    "GIT_PYTHON_REFRESH": "quiet",
}


def check_uri(uri: str | None) -> None:
    """Raise ConfigError for a URI that MLflow cannot use: its file store above all, which it refuses since 3.x."""
    given = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///"
    if given == "databricks":
        return
    scheme = urlsplit(given).scheme.partition("+")[0] if ":" in given else ""
    if scheme in ("", "file"):
        folder = Path(given.removeprefix("file://") or ".").absolute()
        raise ConfigError(
            f"{given} is a folder: MLflow no longer takes new runs into its file store",
            valid="a database or a server: sqlite:////FOLDER/mlflow.db, http://HOST:5000, postgresql://...",
            next=f"--uri sqlite:///{folder / 'mlflow.db'}",
        )
    if scheme not in _SCHEMES:
        raise ConfigError(f"MLflow knows no {scheme}:", valid=", ".join(f"{name}://" for name in _SCHEMES))


def default_uri(uri: str | None, beside: Path) -> str:
    """`uri`, else $MLFLOW_TRACKING_URI, else a SQLite database in the folder `beside`."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside / 'mlflow.db'}"


def without_password(uri: str) -> str:
    """The URI fit to be shown."""
    return re.sub(r"(://[^:/@]*):[^/@]*@", r"\1:***@", uri)


def sync(run: Run, uri: str, experiment: str, *, state: str, whole: bool) -> dict[str, Any]:
    """Bring the copy of `run` up to date. `state`: finished, running or unfinished. Without `whole` only its curves.

    Returns {"id", "experiment", "complete", "added": {"parameters", "metrics", "files", "models"}, "superseded", "behind"};
    "behind" where the copy holds steps that the run, back at a checkpoint, has to do again. Raises OutputError for what MLflow
    or the way to it refuses, DataError for a damaged run.
    """
    with _in_words(uri):
        client = _client(uri)
        copy = _Copy(client, _experiment(client, uri, experiment), run)
        copy.open()
        behind = copy.send_points()
        if whole:
            copy.send_files()
        if whole and state == "finished":
            copy.finish()
        copy.tell_state(state)
        complete = whole and state == "finished" and not behind
    return {
        "id": copy.id,
        "experiment": experiment,
        "complete": complete,
        "added": copy.added,
        "superseded": copy.superseded,
        "behind": behind,
    }


class _Copy:
    """One run's copy in MLflow, and what was added to it."""

    def __init__(self, client: Any, experiment_id: str, run: Run) -> None:
        self.client, self.experiment_id, self.run = client, experiment_id, run
        self.key = content.key_of(run)
        self.begun = content.start_ms(run)
        self.added = {"parameters": 0, "metrics": 0, "files": 0, "models": 0}
        self.superseded: str | None = None
        self.id = ""
        self.tags: dict[str, str] = {}

    def open(self) -> None:
        """Find the copy, or make it; put in the parameters and tags that are missing."""
        wanted = f"tags.`histoproof.key` = '{self.key}'"
        found = self.client.search_runs([self.experiment_id], filter_string=wanted, max_results=1)
        copy = found[0] if found else self._create()
        self.id, self.tags = copy.info.run_id, dict(copy.data.tags)
        self.status = copy.info.status
        missing = {k: v for k, v in content.parameters(self.run).items() if k not in copy.data.params}
        self._send_parameters(missing)
        self._set(content.tags(self.run))

    def _create(self) -> Any:
        tags = {"histoproof.key": self.key, **({"histoproof.supersedes": self.superseded} if self.superseded else {})}
        name = self.run.path.absolute().name
        return self.client.create_run(self.experiment_id, start_time=self.begun, tags=tags, run_name=name)

    def _send_parameters(self, missing: dict[str, str]) -> None:
        from mlflow.entities import Param

        pairs = [Param(key, _short(value, _LONGEST_PARAM, "config.yaml")) for key, value in missing.items()]
        for start in range(0, len(pairs), _MOST_PARAMS):
            self.client.log_batch(self.id, params=pairs[start : start + _MOST_PARAMS], synchronous=True)
        self.added["parameters"] += len(pairs)

    def _set(self, tags: dict[str, str]) -> None:
        """Set the tags that are not so already."""
        from mlflow.entities import RunTag

        new = {k: short for k, v in tags.items() if self.tags.get(k) != (short := _short(v, _LONGEST_TAG, "the files"))}
        if new:
            self.client.log_batch(self.id, tags=[RunTag(k, v) for k, v in new.items()], synchronous=True)
            self.tags |= new

    def send_points(self) -> bool:
        """Send the lines of metrics.jsonl that the copy has not; True if the copy is ahead of the file."""
        from mlflow.entities import RunTag

        sent, sending = self._sent("histoproof.sent"), self._sent("histoproof.sending")
        for size, digest in (sent, sending):
            now = content.prefix_sha256(self.run, size)
            if now is None:
                return True
            if now != digest:
                self._supersede()
                return self.send_points()
        for piece in content.pieces(self.run, sent[0], _MOST_METRICS):
            mark = canonical({"bytes": piece.stop, "sha256": piece.sha256})
            self._set({"histoproof.sending": mark})
            tag = RunTag("histoproof.sent", mark)
            self.client.log_batch(self.id, metrics=self._metrics(piece.points), tags=[tag], synchronous=True)
            self.tags["histoproof.sent"] = mark
            self.added["metrics"] += len(piece.points)
        return False

    def _sent(self, tag: str) -> tuple[int, str | None]:
        """(bytes of metrics.jsonl, their digest) that a tag speaks of."""
        mark = json.loads(self.tags.get(tag, "{}"))
        return mark.get("bytes", 0), mark.get("sha256", content.prefix_sha256(self.run, 0))

    def _metrics(self, points: list[content.Point]) -> list[Any]:
        from mlflow.entities import Metric

        return [Metric(point.key, point.value, self.begun + point.step, point.step) for point in points]

    def _supersede(self) -> None:
        """Begin a new copy; the old one says which, and goes to MLflow's bin."""
        old, self.superseded = self.id, self.id
        new = self._create()
        self.client.set_tag(old, "histoproof.superseded_by", new.info.run_id)
        self.client.delete_run(old)
        self.id, self.tags, self.status = new.info.run_id, dict(new.data.tags), new.info.status
        self._send_parameters(content.parameters(self.run))
        self._set(content.tags(self.run))

    def send_files(self) -> None:
        """Copy the files that are new or changed since they were copied; copied.json beside them holds their digests."""
        now = content.digests(self.run)
        mark = _digest_of(now)
        if self.tags.get("histoproof.files_sha256") == mark:
            return
        before = self._copied()
        for name, digest in now.items():
            if before.get(name) != digest:
                folder = Path(name).parent.as_posix()
                self.client.log_artifact(self.id, str(self.run.path / name), None if folder == "." else folder)
                self.added["files"] += 1
        with TemporaryDirectory() as temporary:
            write_json(Path(temporary) / "copied.json", now)
            self.client.log_artifact(self.id, str(Path(temporary) / "copied.json"))
        self._set({"histoproof.files_sha256": mark})

    def _copied(self) -> dict[str, str]:
        """What copied.json says; nothing if it is not there, or not readable: then every file is copied again."""
        from mlflow.exceptions import MlflowException

        if "histoproof.files_sha256" not in self.tags:
            return {}
        with TemporaryDirectory() as temporary:
            try:
                path = Path(self.client.download_artifacts(self.id, "copied.json", temporary))
                return dict(json.loads(path.read_text()))
            except (MlflowException, OSError, ValueError):
                return {}

    def finish(self) -> None:
        """The best epoch's scores and the model, once."""
        from mlflow.entities import RunTag

        from . import model  # it needs torch, which following a run does without

        summary = self.run.load_summary()
        if self.tags.get("histoproof.scores") != summary["trail_sha256"]:
            points = content.scores(self.run)
            tag = RunTag("histoproof.scores", summary["trail_sha256"])
            self.client.log_batch(self.id, metrics=self._metrics(points), tags=[tag], synchronous=True)
            self.added["metrics"] += len(points)
        if self.tags.get("histoproof.model") != summary["best_weights_sha256"]:
            best = summary["best"]["step"]
            model.send(self.client, self.run, self.id, self.experiment_id, summary["best_weights_sha256"], best)
            self._set({"histoproof.model": summary["best_weights_sha256"]})
            self.added["models"] += 1

    def tell_state(self, state: str) -> None:
        """The status that MLflow shows."""
        self._set({"histoproof.status": state})
        status = {"finished": "FINISHED", "running": "RUNNING", "unfinished": "KILLED"}[state]
        if status == self.status:
            return
        if status == "FINISHED":
            self.client.set_terminated(self.id, status, content.end_ms(self.run))
        else:
            self.client.update_run(self.id, status=status)
        self.status = status


def _short(text: str, most: int, whole_in: str) -> str:
    """Text that MLflow would cut without a word, cut with one."""
    if len(text) <= most:
        return text
    note = f" ... ({len(text)} characters; whole in {whole_in})"
    return text[: most - len(note)] + note


def _digest_of(digests: dict[str, str]) -> str:
    return hashlib.sha256(canonical(digests).encode()).hexdigest()


def _client(uri: str) -> Any:
    """A client of its own, that leaves MLflow's global settings alone. A new SQLite database is made by one process only."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _made_by_one(_sqlite_file(uri)):
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(client: Any, uri: str, name: str) -> str:
    """The id of the experiment, made if it is not there."""
    from mlflow.exceptions import MlflowException

    database = _sqlite_file(uri)
    with _made_by_one(database):
        found = client.get_experiment_by_name(name)
        if found is None:
            # without a server MLflow would put files into the folder one happens to be in
            place = (database.parent / "mlartifacts").as_uri() if database else None
            try:
                return str(client.create_experiment(name, artifact_location=place))
            except MlflowException:
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
    if found.lifecycle_stage != "active":
        raise OutputError(
            f"the experiment {name} was deleted in MLflow",
            next=f"restore it (`mlflow experiments restore -x {found.experiment_id}`), or give another --experiment",
        )
    return str(found.experiment_id)


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite:"):
        return None
    path = Path(urlsplit(uri).path.removeprefix("/") or "mlflow.db").absolute()
    if not path.parent.is_dir():
        raise OutputError(f"no such folder: {path.parent}", next=f"make it, or give another --uri than {uri}")
    return path


@contextmanager
def _made_by_one(database: Path | None) -> Iterator[None]:
    """Several processes that set up one new SQLite database at once break it."""
    with nullcontext() if database is None else locked(database, wait_s=120):
        yield


@contextmanager
def _in_words(uri: str) -> Iterator[None]:
    """What MLflow, its database or the network say, as an OutputError."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    shown = without_password(uri)
    try:
        yield
    except HistoproofError:
        raise
    except (MlflowException, requests.RequestException, SQLAlchemyError) as e:
        text = " ".join(str(e).split()).replace(uri, shown)
        if "Max retries exceeded" in text or "Connection" in type(e).__name__:
            reason = text.rpartition("Caused by ")[2] if "Caused by " in text else text
            problem, advice = f"the MLflow server {shown} does not answer: {reason[:300]}", "start it"
        else:
            problem, advice = f"MLflow at {shown}: {text[:300]}", "put that right"
        raise OutputError(problem, next=f"{advice}, then give the same command: it goes on where it stopped") from e
