"""A hash-chained file with a witness: whatever is changed, removed, moved or cut is detected and named by line."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histoproof import ledger
from histoproof.errors import DataError, OutputError, RunError, SealedError
from histoproof.files import canonical, read_json, write_json
from histoproof.runs import GENESIS, chained


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """The place of a store whose test split was opened three times."""
    for k in range(3):
        ledger.open_test(tmp_path / "store", f"reason {k}", run=str(k))
    return tmp_path / "store"


def lines(store: Path) -> list[str]:
    return ledger.path_of(store).read_text().splitlines(keepends=True)


def named(store: Path) -> list[int | None]:
    return [problem.line for problem in ledger.verify(store)]


def test_an_opening_says_who_when_why_and_with_what(tmp_path: Path) -> None:
    line = ledger.open_test(tmp_path / "store", "final score", run="runs/a", weights_sha256="ab")
    assert set(line) == {"number", "opened", "by", "reason", "command", "run", "weights_sha256", "chain"}
    assert ledger.openings(tmp_path / "store") == [line]
    assert ledger.verify(tmp_path / "store") == []


def test_without_a_reason_nothing_is_opened_or_written(tmp_path: Path) -> None:
    for reason in (None, "", "   "):
        with pytest.raises(SealedError, match="histoproof champion"):
            ledger.open_test(tmp_path / "store", reason)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_changed_byte_is_detected_and_named_by_its_line(three: Path, data: st.DataObject) -> None:
    path = ledger.path_of(three)
    whole = path.read_bytes()
    content = bytearray(whole)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        problems = ledger.verify(three)
        # a changed newline joins two lines into one; a line that was cut in two is named by its first half
        assert problems[0].line == whole[:at].count(b"\n") + 1
        assert f"{path}:{problems[0].line}:" in str(problems[0])
        with pytest.raises(RunError, match=r"ledger\.jsonl:"):
            ledger.openings(three)
    finally:
        path.write_bytes(whole)
    assert ledger.verify(three) == []


@pytest.mark.parametrize(
    ("keep", "first"),
    [([0, 2], 2), ([1, 0, 2], 1), ([1, 2], 1), ([0, 0, 1, 2], 2), ([0, 2, 1], 2), ([0, 1], 3), ([0], 2), ([], 1)],
)
def test_moved_removed_and_cut_lines_are_detected_and_named(three: Path, keep: list[int], first: int) -> None:
    all_lines = lines(three)
    ledger.path_of(three).write_text("".join(all_lines[k] for k in keep))
    assert named(three)[0] == first
    with pytest.raises(RunError, match=rf"ledger\.jsonl:{first}"):
        ledger.open_test(three, "another")


def test_each_edited_line_is_named_and_no_other(three: Path) -> None:
    for k in range(3, 6):
        ledger.open_test(three, f"reason {k}", run=str(k))
    text = ledger.path_of(three).read_text().replace("reason 1", "reason I").replace("reason 4", "reason A")
    ledger.path_of(three).write_text(text)
    assert named(three) == [2, 5]


def test_an_edited_link_is_named_at_its_own_line(three: Path) -> None:
    changed = lines(three)
    link = json.loads(changed[1])["chain"]
    changed[1] = changed[1].replace(link, GENESIS)
    ledger.path_of(three).write_text("".join(changed))
    assert named(three) == [2]


def test_a_deleted_ledger_is_missed_by_its_witness(three: Path) -> None:
    ledger.path_of(three).unlink()
    (problem,) = ledger.verify(three)
    assert "lines 1 to 3 are missing" in problem.text
    with pytest.raises(RunError, match="are missing"):
        ledger.open_test(three, "as if nothing had been")


def test_a_ledger_written_anew_from_the_start_does_not_fit_its_witnesses(three: Path, tmp_path: Path) -> None:
    link, forged = GENESIS, []
    for text in lines(three):
        line = json.loads(text)
        line.pop("chain")
        line["reason"] = "nothing to see"
        link = chained(link, line)
        forged.append(canonical({**line, "chain": link}) + "\n")
    evaluation = tmp_path / "run" / "evaluations" / "test.json"
    last = json.loads(lines(three)[1])
    where = {"path": str(ledger.path_of(three)), "line": 2, "chain": last["chain"]}
    write_json(evaluation, {"store_sha256": "s", "ledger": where})
    ledger.path_of(three).write_text("".join(forged))
    assert named(three) == [3]  # the witness beside it knows the last link
    write_json(ledger.witness_of(three), {"lines": 3, "chain": link})
    assert ledger.verify(three) == []  # forged too: now only those that were scored know better
    asked = ledger.witnesses_in(three, [evaluation])
    assert [p.line for p in ledger.verify(three, asked)] == [2]
    assert "bears witness" in str(ledger.verify(three, asked)[0])
    found = ledger.ledger(three, [tmp_path / "run"])
    assert (found["ok"], found["problems"][0]["line"]) == (False, 2)


def test_a_removed_or_damaged_witness_is_a_problem_of_its_own(three: Path) -> None:
    witness = ledger.witness_of(three)
    whole = witness.read_text()
    for text in ("{", "[]", '{"lines": "many"}'):
        witness.write_text(text)
        assert "witness is damaged" in str(ledger.verify(three)[0])
    witness.unlink()
    assert "witness was removed" in str(ledger.verify(three)[0])
    with pytest.raises(RunError, match="witness was removed"):
        ledger.open_test(three, "another")
    witness.write_text(whole)
    assert ledger.verify(three) == []


def test_a_process_killed_in_a_line_is_no_tampering_and_the_next_opening_clears_it_away(three: Path) -> None:
    path = ledger.path_of(three)
    path.write_bytes(path.read_bytes() + lines(three)[2].encode()[:40])
    assert ledger.verify(three) == []
    (note,) = ledger.notes(three)
    assert "never finished" in note
    line = ledger.open_test(three, "after the kill")
    assert (line["number"], line["after_torn_bytes"]) == (4, 40)
    assert (ledger.verify(three), ledger.notes(three)) == ([], [])


def test_a_process_killed_between_line_and_witness_is_no_tampering(three: Path) -> None:
    before = ledger.witness_of(three).read_text()
    ledger.open_test(three, "killed after this line")
    ledger.witness_of(three).write_text(before)
    assert ledger.verify(three) == []
    assert "knows of 3 lines, and there are 4" in ledger.notes(three)[0]
    ledger.open_test(three, "next")
    assert read_json(ledger.witness_of(three))["lines"] == 5


def test_a_newline_that_was_cut_off_is_a_missing_line_and_no_kill(three: Path) -> None:
    path = ledger.path_of(three)
    path.write_bytes(path.read_bytes()[:-1])
    assert named(three) == [3]
    assert ledger.notes(three) == []


def test_ledgers_of_older_versions_still_hold(tmp_path: Path) -> None:
    link, text = GENESIS, ""
    for k in range(2):
        line = {"opened": "2026-01-01T00:00:00+00:00", "by": "a", "reason": str(k), "command": []}
        link = chained(link, line)
        text += canonical({**line, "chain": link}) + "\n"
    ledger.path_of(tmp_path / "store").write_text(text)
    assert (ledger.verify(tmp_path / "store"), ledger.notes(tmp_path / "store")) == ([], [])
    assert ledger.open_test(tmp_path / "store", "now")["number"] == 3
    assert ledger.verify(tmp_path / "store") == []


def _open(store: Path, name: str) -> None:
    for k in range(5):
        ledger.open_test(store, f"{name} {k}")


def test_openings_at_the_same_time_wait_for_one_another(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(tmp_path / "store", str(k))) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [line["number"] for line in ledger.openings(tmp_path / "store")] == list(range(1, 16))
    assert ledger.verify(tmp_path / "store") == []


def test_what_cannot_be_written_down_is_not_opened(tmp_path: Path, mounted: object) -> None:
    folder = mounted("ro")  # type: ignore[operator]
    with pytest.raises(OutputError, match="read-only|Read-only"):
        ledger.open_test(folder / "store", "on a read-only disk")


def test_a_link_to_a_store_leads_to_its_own_ledger(three: Path, tmp_path: Path) -> None:
    three.mkdir()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "mine"
    link.symlink_to(three)
    assert len(ledger.openings(link)) == 3
    ledger.open_test(link, "through a link")
    assert len(ledger.openings(three)) == 4
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine"]


def test_the_command_tells_zero_openings_and_refuses_what_is_no_store(store: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(store, tmp_path / "own"))
    found = ledger.ledger(own)
    assert (found["count"], found["openings"], found["ok"]) == (0, [], True)
    assert "opened 0 times" in ledger.in_words(found)[0]
    with pytest.raises(DataError, match="is no store"):
        ledger.ledger(tmp_path / "absent")
    with pytest.raises(DataError, match="no such folder"):
        ledger.ledger(own, [tmp_path / "absent"])


def test_every_opening_is_told_even_where_the_chain_is_broken(three: Path) -> None:
    path = ledger.path_of(three)
    path.write_text(path.read_text().replace('"by"', '"bY"', 1).replace("reason 2", "reason\t2"))
    found = ledger.ledger(three)
    assert [p["line"] for p in found["problems"]] == [1, 3]
    assert [line["number"] for line in found["openings"]] == [1, 2, 3]
    assert sum(text.startswith("does not hold: ") for text in ledger.in_words(found)) == 2
