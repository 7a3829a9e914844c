"""The journal says what the evidence says, in two languages, and what was not measured it calls so."""

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from histoproof.errors import DataError, RunError
from histoproof.evaluate import evaluate
from histoproof.files import read_json
from histoproof.journal import check, journal
from histoproof.train import train

from .conftest import REPOSITORY
from .test_train import MLP, _terminate_at, config, train_on_noise

WORDS = REPOSITORY / "src" / "histoproof" / "journal" / "words"


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journal")
    train(config(folder, store, MLP), out=folder / "run one")
    return folder / "run one"


def test_the_page_is_whole_opens_from_disk_and_asks_nothing_of_the_network(run: Path, tmp_path: Path) -> None:
    result = journal([run], tmp_path / "j")
    html = Path(result["journal"]).read_text()
    assert html.count("<svg") == html.count("</svg>") == 4
    assert not re.search(r'(src|href)="(?!#|data:)', html)
    assert "<script" not in html
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.S):
        ET.fromstring(svg)
    targets = set(re.findall(r'\bid="([^"]*)"', html))
    assert {link.removeprefix("#") for link in re.findall(r'href="(#[^"]*)"', html)} <= targets
    _Balanced().check(html)


def test_every_number_of_the_scores_is_the_evidences(run: Path, tmp_path: Path) -> None:
    journal([run], tmp_path / "j")
    html, markdown = (tmp_path / "j" / "journal.html").read_text(), (tmp_path / "j" / "journal.md").read_text()
    evaluation, summary = read_json(run / "evaluations" / "valid.json"), read_json(run / "summary.json")
    for name in ("auc", "f2", "recall", "ece", "nll"):
        m = evaluation["metrics"][name]
        for page in (html, markdown):
            assert f"{m['value']:.3f}" in page
            assert f"{m['low']:.3f} – {m['high']:.3f}" in page
    for page in (html, markdown):
        assert summary["weights_sha256"] in page
        assert summary["trail_sha256"] in page


def test_every_figure_is_followed_by_its_command(run: Path, tmp_path: Path) -> None:
    html = Path(journal([run], tmp_path / "j")["journal"]).read_text()
    for after in html.split("</figure>")[1:]:
        assert after.lstrip().startswith('<p class="command">made by <code>')


def test_markdown_has_its_figures_beside_it(run: Path, tmp_path: Path) -> None:
    journal([run], tmp_path / "j")
    names = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (tmp_path / "j" / "journal.md").read_text())
    assert len(names) == 4
    for name in names:
        with Image.open(tmp_path / "j" / name) as image:
            assert image.width > 400


def test_equal_evidence_gives_equal_bytes_and_check_agrees(run: Path, tmp_path: Path) -> None:
    one, two = journal([run], tmp_path / "a"), journal([run], tmp_path / "b")
    for name in one["files"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert one["files"] == two["files"]
    assert check([run], tmp_path / "a") == {"ok": True, "problems": []}


def test_check_names_changed_evidence_and_a_changed_page(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    journal([copy], tmp_path / "j")
    page = tmp_path / "j" / "journal.html"
    page.write_text(page.read_text().replace("AUC", "AOC", 1))
    assert any("journal.html is not what the evidence says now" in p for p in check([copy], tmp_path / "j")["problems"])
    evaluation = copy / "evaluations" / "valid.json"
    evaluation.write_text(evaluation.read_text().replace("0.5", "0.6", 1))
    assert any("evidence was changed" in p and "valid.json" in p for p in check([copy], tmp_path / "j")["problems"])


def test_dutch_says_the_same_with_decimal_commas(run: Path, tmp_path: Path) -> None:
    html = Path(journal([run], tmp_path / "j", lang="nl")["journal"]).read_text()
    auc = read_json(run / "evaluations" / "valid.json")["metrics"]["auc"]["value"]
    assert f"{auc:.3f}".replace(".", ",") in html
    assert '<html lang="nl">' in html
    assert "De verzegelde test-split" in html
    assert "0 keer geopend." in html


def test_both_languages_have_the_same_words() -> None:
    def keys(value: object, path: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {path}
        return set().union(*(keys(v, f"{path}.{k}") for k, v in value.items()))

    english, dutch = (yaml.safe_load((WORDS / f"{lang}.yaml").read_text()) for lang in ("en", "nl"))
    assert keys(english) == keys(dutch)


def test_an_unfinished_run_says_so(store: Path, tmp_path: Path) -> None:
    train(config(tmp_path, store, MLP), out=tmp_path / "half", progress=_terminate_at(3))
    html = Path(journal([tmp_path / "half"], tmp_path / "j")["journal"]).read_text()
    assert "This run is not finished" in html
    assert html.count("not measured") >= 2


def test_a_run_at_chance_level_is_told_in_red(tmp_path: Path, write_split: Callable[..., None]) -> None:
    train_on_noise(tmp_path, write_split)
    html = Path(journal([tmp_path / "run"], tmp_path / "j")["journal"]).read_text()
    assert re.search(r'<div class="warning">at chance level', html)


def test_openings_of_the_test_split_are_printed(store: Path, run: Path, tmp_path: Path) -> None:
    from histoproof import ledger

    evaluate(run, split="test", open_test="because <b>I</b> must")
    try:
        html = Path(journal([run], tmp_path / "j")["journal"]).read_text()
        assert "Opened once." in html
        assert "because &lt;b&gt;I&lt;/b&gt; must" in html
        assert "On the test split" in html
    finally:
        ledger.path_of(store).unlink()
        ledger.witness_of(store).unlink()
        (run / "evaluations" / "test.json").unlink()


def test_a_store_that_is_gone_is_said_to_be_gone(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(re.sub(r"store: .*", "store: /elsewhere/store", text, count=1))
    html = Path(journal([copy], tmp_path / "j")["journal"]).read_text()
    assert "The store is not on this machine: /elsewhere/store" in html


def test_several_runs_share_one_page(run: Path, store: Path, tmp_path: Path) -> None:
    train(config(tmp_path, store, MLP), ["seed=9"], out=tmp_path / "two")
    html = Path(journal([run, tmp_path / "two"], tmp_path / "j")["journal"]).read_text()
    assert html.count("<svg") == 8
    assert len(set(re.findall(r'\bid="([^"]+)"', html))) == len(re.findall(r'\bid="([^"]+)"', html))


def test_what_is_no_run_and_what_is_no_journal_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        journal([tmp_path / "absent"], tmp_path / "j")
    with pytest.raises(DataError, match="holds no journal"):
        check([], tmp_path)


class _Balanced(HTMLParser):
    """Fails on a tag that is closed without being open, or left open."""

    VOID = frozenset({"meta", "br", "hr", "img", "link"})

    def check(self, html: str) -> None:
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert [tag for tag in self.open if tag not in {"li", "p"}] == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> does not close what is open"
