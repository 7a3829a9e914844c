"""A hash-chained file: whatever is changed, removed or moved is detected."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histoproof import ledger
from histoproof.errors import RunError, SealedError


def test_an_opening_says_who_when_why_and_with_what(tmp_path: Path) -> None:
    line = ledger.open_test(tmp_path / "store", "final score", run="runs/a", weights_sha256="ab")
    assert set(line) == {"opened", "by", "reason", "command", "run", "weights_sha256"}
    assert ledger.openings(tmp_path / "store")[0]["reason"] == "final score"


def test_without_a_reason_nothing_is_opened_or_written(tmp_path: Path) -> None:
    for reason in (None, "", "   "):
        with pytest.raises(SealedError):
            ledger.open_test(tmp_path / "store", reason)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_changed_byte_is_detected(tmp_path: Path, data: st.DataObject) -> None:
    path = ledger.path_of(tmp_path / "store")
    path.unlink(missing_ok=True)
    for k in range(3):
        ledger.open_test(tmp_path / "store", f"reason {k}", run=str(k))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 2))
    flipped = data.draw(st.integers(1, 255))
    content[at] ^= flipped
    path.write_bytes(content)
    with pytest.raises(Exception, match=r"ledger\.jsonl"):
        ledger.openings(tmp_path / "store")


def test_moved_and_removed_lines_are_detected(tmp_path: Path) -> None:
    path = ledger.path_of(tmp_path / "store")
    for k in range(3):
        ledger.open_test(tmp_path / "store", f"reason {k}")
    lines = path.read_text().splitlines(keepends=True)
    for changed in ([lines[0], lines[2]], [lines[1], lines[0], lines[2]], lines[1:], [lines[0], *lines]):
        path.write_text("".join(changed))
        with pytest.raises(RunError, match="does not fit the chain"):
            ledger.openings(tmp_path / "store")
