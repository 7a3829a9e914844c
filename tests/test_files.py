"""Files on disk are written whole or not at all, and appended line by line."""

import json
from pathlib import Path

import pytest

from histoproof import files
from histoproof.errors import DataError, OutputError


def test_a_file_that_fails_halfway_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_halfway_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with pytest.raises(ZeroDivisionError), files.new_folder(path, what="store") as temporary:
        (temporary / "x").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").write_text("mine")
    with pytest.raises(OutputError, match="never overwritten"), files.new_folder(tmp_path / "store", what="store"):
        pass
    assert (tmp_path / "store" / "x").read_text() == "mine"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with files.new_folder(tmp_path / "store", what="store") as temporary:
        (temporary / "x").write_text("new")
    assert (tmp_path / "store" / "x").read_text() == "new"


def test_a_full_disk_is_told_and_leaves_nothing(mounted: object, tmp_path: Path) -> None:
    folder = mounted("size=64k")  # type: ignore[operator]
    with pytest.raises(OutputError, match="No space left") as error:
        files.write_bytes(folder / "big", b"x" * 200_000)
    assert "free some space" in str(error.value)
    assert list(folder.iterdir()) == []


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1}\n{"a":2}\n{"a":')
    assert files.read_lines(path) == [{"a": 1}, {"a": 2}]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1}\n{"a":\n{"a":3}\n')
    with pytest.raises(DataError, match="not JSON"):
        files.read_lines(path)


def test_appending_goes_on_where_a_checkpoint_says(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = files.JsonLines(path)
    lines.append({"a": 1})
    kept = lines.bytes
    lines.append({"a": 2})
    lines.close()
    again = files.JsonLines(path, keep_bytes=kept)
    again.append({"a": 3})
    again.close()
    assert files.read_lines(path) == [{"a": 1}, {"a": 3}]


def test_nan_becomes_null(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, 1.5]}
