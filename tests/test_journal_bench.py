"""The journal's eighth chapter says what `bench` measured, in two languages, and refuses a result that was changed."""

import re
from pathlib import Path
from typing import Any

import pytest

from histoproof import bench
from histoproof.bench.rows import bench_sha256
from histoproof.errors import DataError
from histoproof.files import read_json, write_json
from histoproof.journal import check, journal
from histoproof.journal.chapters.benchmark import _rate
from histoproof.journal.language import language


@pytest.fixture(scope="module")
def measured(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench of the loader on a CPU, and on a GPU that is not there."""
    out = tmp_path_factory.mktemp("journal bench") / "loader"
    bench.loader(store, batch_sizes=[16], devices=["cpu", "cuda"], precisions=["fp32"], quick=True, out=out)
    return out


def changed(source: Path, out: Path, **keys: Any) -> Path:
    """A copy of a result with other content, and the digest that goes with it."""
    content = {**read_json(source / "bench.json"), **keys}
    del content["bench_sha256"]
    out.mkdir()
    write_json(out / "bench.json", {**content, "bench_sha256": bench_sha256(content)})
    return out


def chapter(page: str) -> str:
    return page.split('<h2 id="c8"')[1].split('<h2 id="c9"', maxsplit=1)[0]


@pytest.mark.parametrize("lang", ["en", "nl"])
def test_both_pages_hold_the_rates_and_why_others_are_missing(measured: Path, tmp_path: Path, lang: Any) -> None:
    made = journal([measured], tmp_path / "j", lang=lang)
    w = language(lang)
    row, missing = read_json(measured / "bench.json")["rows"]
    pages = [chapter(Path(made["journal"]).read_text()), Path(made["markdown"]).read_text()]
    for page in pages:
        for rate in (row["images_per_s"], row["stages"]["data"], row["stages"]["compute"]):
            assert _rate(rate["median"], w) in page
        assert w.say(f"benchmark.{row['bottleneck']['stage']}") in page
        assert missing["status"] == "measured" or missing["reason"] in page
        assert w.say("benchmark.no_slurm") in page
    assert pages[0].count('<svg role="img"') == 1
    assert check([measured], tmp_path / "j") == {"ok": True, "problems": []}


def test_a_slurm_job_is_told_as_it_was_recorded(measured: Path, tmp_path: Path) -> None:
    content = read_json(measured / "bench.json")
    slurm = {"partition": "thin_course", "node": "tcn42", "job_id": "1234567"}
    copy = changed(measured, tmp_path / "b", environment={**content["environment"], "slurm": slurm})
    page = chapter(Path(journal([copy], tmp_path / "j")["journal"]).read_text())
    assert all(value in page for value in slurm.values())


def test_what_was_stopped_says_so(measured: Path, tmp_path: Path) -> None:
    copy = changed(measured, tmp_path / "b", stopped="SIGINT")
    assert "stopped by SIGINT" in chapter(Path(journal([copy], tmp_path / "j")["journal"]).read_text())


def test_a_result_that_was_changed_is_no_evidence(measured: Path, tmp_path: Path) -> None:
    content = read_json(measured / "bench.json")
    content["rows"][0]["images_per_s"]["median"] *= 2
    (tmp_path / "b").mkdir()
    write_json(tmp_path / "b" / "bench.json", content)
    with pytest.raises(DataError, match="bench.json"):
        journal([tmp_path / "b"], tmp_path / "j")


def test_without_a_bench_the_chapter_says_what_to_run(store: Path, tmp_path: Path) -> None:
    page = chapter(Path(journal([store], tmp_path / "j")["journal"]).read_text())
    assert re.search(r"histoproof bench loader --store STORE", page)


def test_rates_keep_three_digits_that_count() -> None:
    w = language("en")
    assert [_rate(v, w) for v in (0.5, 12.34, 119.6, 1234.0, 98765.0)] == ["0.5", "12.3", "120", "1,230", "98,800"]


@pytest.mark.parametrize("path", ["peak_ram_bytes", "median", "name", "surrogate"])
def test_hostile_values_are_answered_in_words_and_leave_no_folder(measured: Path, tmp_path: Path, path: str) -> None:
    rows = read_json(measured / "bench.json")["rows"]
    match path:
        case "peak_ram_bytes":
            rows[0]["peak_ram_bytes"] = 10**400
        case "median":
            rows[0]["images_per_s"]["median"] = 5e-324
        case "name":
            rows[0]["ceiling"]["name"] = 5
        case _:
            rows[0]["model"] = "⟦surrogate⟧"
    copy = changed(measured, tmp_path / "b", rows=rows)
    if path == "surrogate":
        text = (copy / "bench.json").read_text().replace("⟦surrogate⟧", "\\ud800")
        (copy / "bench.json").write_text(text)
    with pytest.raises(DataError, match="bench.json is damaged"):
        journal([copy], tmp_path / "j")
    with pytest.raises(DataError, match="bench.json is damaged"):
        bench.compare(measured, copy)
    assert not (tmp_path / "j").exists()
