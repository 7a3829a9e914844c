"""A run copied to TensorBoard: event files written by TensorBoard's own writer, values as doubles, the config as text.

Each copying adds one event file, under a name that says which bytes of metrics.jsonl it holds and the digest up to there, by one
rename: so the files themselves say what is there, and a copying ended midway leaves nothing. A file that metrics.jsonl no longer
agrees with (the run went back to a checkpoint and went on with other bits) is removed and written again.
"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import OutputError, writing
from ..files import read_json, write_json
from ..runs import Run
from . import content

__all__ = ["sync"]

_NAME = re.compile(r"events\.out\.tfevents\.(\d{14})-(\d{14})-([0-9a-f]{64})\.histoproof")
_SCORES = "events.out.tfevents.scores-{}.histoproof"
_MOST = 100_000
_TEMPORARY = ".writing-"


def sync(run: Run, uri: str, experiment: str, *, state: str, whole: bool) -> dict[str, Any]:
    """Bring the event files of `run` under the log folder `uri` up to date; `experiment` is MLflow's affair.

    Returns {"id" (the folder), "complete", "added": {"metrics", "files"}, "removed", "behind"}: see `mlflow.sync`.
    """
    with writing(Path(uri)):
        folder = _folder(run, Path(uri))
        for left in folder.glob(f"{_TEMPORARY}*"):  # by a copying that was killed; TensorBoard would read it
            shutil.rmtree(left, ignore_errors=True)
        there, removed, behind = _kept(run, folder)
        added = {"metrics": 0, "files": 0}
        begun = content.start_ms(run)
        for piece in () if behind else content.pieces(run, there, _MOST):
            name = f"events.out.tfevents.{piece.start:014d}-{piece.stop:014d}-{piece.sha256}.histoproof"
            text = {"config": run.config.read_text()} if piece.start == 0 else {}
            _write(folder / name, piece.points, begun, text)
            added = {"metrics": added["metrics"] + len(piece.points), "files": added["files"] + 1}
        finished = whole and state == "finished"
        if finished:
            scores = folder / _SCORES.format(run.load_summary()["trail_sha256"])
            if not scores.exists():
                points = content.scores(run)
                _write(scores, points, begun, {"tags": _as_table(content.tags(run))})
                added = {"metrics": added["metrics"] + len(points), "files": added["files"] + 1}
    return {
        "id": str(folder),
        "complete": finished and not behind,
        "added": added,
        "removed": removed,
        "behind": behind,
    }


def _folder(run: Run, logs: Path) -> Path:
    """The run's folder among the logs: its name, or its name and a number where another run has it."""
    key, name = content.key_of(run), run.path.absolute().name
    for candidate in _names(logs, name):
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            if (candidate / "histoproof.json").is_file() and read_json(candidate / "histoproof.json")["key"] == key:
                return candidate
            continue
        write_json(candidate / "histoproof.json", {"key": key, "run": str(run.path.absolute())})
        return candidate
    raise OutputError(f"{logs} is full of runs named {name}", next="give another --uri")


def _names(logs: Path, name: str) -> Iterator[Path]:
    yield logs / name
    yield from (logs / f"{name}-{number}" for number in range(2, 1000))


@dataclass(frozen=True)
class _File:
    path: Path
    start: int
    stop: int
    sha256: str


def _kept(run: Run, folder: Path) -> tuple[int, int, bool]:
    """(bytes of metrics.jsonl that the files hold, how many were removed, whether they hold more than metrics.jsonl has)."""
    files = []
    for path in folder.iterdir():
        found = _NAME.fullmatch(path.name)
        if found:
            files.append(_File(path, int(found[1]), int(found[2]), found[3]))
    there, removed, behind = 0, 0, False
    for file in sorted(files, key=lambda f: (f.start, f.stop)):
        now = content.prefix_sha256(run, file.stop)
        if file.start == there and now in (None, file.sha256):
            there, behind = file.stop, behind or now is None
        else:
            file.path.unlink()
            removed += 1
    return there, removed, behind


def _write(path: Path, points: list[content.Point], begun_ms: int, text: dict[str, str]) -> None:
    """One event file, whole or not at all."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    with TemporaryDirectory(prefix=_TEMPORARY, dir=path.parent) as temporary:
        writer = EventFileWriter(temporary, max_queue_size=1000)
        try:
            for name, words in text.items():
                writer.add_event(Event(wall_time=begun_ms / 1000, step=0, summary=_text(name, words)))
            for point in points:
                time = (begun_ms + point.step) / 1000
                writer.add_event(Event(wall_time=time, step=point.step, summary=_scalar(point)))
        finally:
            writer.close()
        written = next(Path(temporary).iterdir())
        with written.open("rb") as file:
            os.fsync(file.fileno())
        written.replace(path)


def _scalar(point: content.Point) -> Any:
    """A scalar as a double: the older `simple_value` is a float32, which would round."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_DOUBLE

    kind = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
    )
    tensor = TensorProto(dtype=DT_DOUBLE, double_val=[point.value])
    return Summary(value=[Summary.Value(tag=point.key, metadata=kind, tensor=tensor)])


def _text(name: str, words: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"), data_class="DATA_CLASS_TENSOR")
    indented = "".join(f"    {line}\n" for line in words.splitlines())  # Markdown for: as it is
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[indented.encode()], tensor_shape=shape)
    return Summary(value=[Summary.Value(tag=name, metadata=kind, tensor=tensor)])


def _as_table(tags: dict[str, str]) -> str:
    width = max(map(len, tags))
    return "\n".join(f"{name:{width}}  {value}" for name, value in tags.items())
