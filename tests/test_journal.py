"""The journal says what the evidence says, in two languages, and what was not measured it calls so."""

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

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
    assert not re.search(
        r'src="|(?<!xlink:)href="(?!#)[a-z]+:|url\((?!#)|@import', html
    )  # links are relative; nothing is loaded
    assert "<script" not in html
    links = [unquote(link) for link in re.findall(r'<a href="([^#"][^"]*)"', html)]
    assert len(links) > 10
    gone = {link for link in links if not (tmp_path / "j" / link).is_file()}
    assert all(
        link.endswith(".ledger.jsonl") for link in gone
    )  # the test split was never opened: there is no ledger yet
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
    assert re.search(r'<div class="warning" role="note">run: at chance level', html)


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


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("evaluations/valid.json", '"n": ', '"n": 1', "valid.json: n is 1"),
        ("metrics.jsonl", '"step":3}', '"step":3,"x":1}', "metrics.jsonl:"),
        ("summary.json", '"epochs": ', '"epochs": 7', "summary.json: epochs is 7"),
    ],
)
def test_check_names_the_number_that_was_edited(
    run: Path, tmp_path: Path, file: str, old: str, new: str, named: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    journal([copy], tmp_path / "j")
    text = (copy / file).read_text()
    assert text.count(old) >= 1
    (copy / file).write_text(text.replace(old, new, 1))
    problems = check([copy], tmp_path / "j")["problems"]
    assert any(named in problem for problem in problems), problems


def test_check_names_the_step_and_the_epoch_whose_metric_was_edited(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    journal([copy], tmp_path / "j")
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if '"kind":"epoch"' in line)
    for place, edit in ((2, (r'"loss":[\d.]+', '"loss":0.123')), (at, (r'"auc":[\d.]+', '"auc":0.987'))):
        changed = [re.sub(*edit, line) if n == place else line for n, line in enumerate(lines)]
        (copy / "metrics.jsonl").write_text("\n".join(changed) + "\n")
        problems = check([copy], tmp_path / "j")["problems"]
        assert any(f"metrics.jsonl:{place + 1} is another line now" in p and edit[1] in p for p in problems), problems
    assert any("at step 2, loss is 0.123" in p for p in _problems_after(copy, lines, tmp_path))


def test_an_edited_epoch_and_control_characters_are_told(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "evil \x1b[31m"
    shutil.copytree(run, copy)
    text = (copy / "metrics.jsonl").read_text()
    edited = re.sub(r'"auc":[\d.]+', '"auc":0.987', text)
    assert edited != text
    (copy / "metrics.jsonl").write_text(edited)
    made = journal([copy], tmp_path / "j")
    assert any("metrics.jsonl is not what summary.json vouches for" in problem for problem in made["problems"])
    for name in ("journal", "markdown"):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", Path(made[name]).read_text())


def _problems_after(copy: Path, lines: list[str], tmp_path: Path) -> list[str]:
    changed = [re.sub(r'"loss":[\d.]+', '"loss":0.123', line) if n == 2 else line for n, line in enumerate(lines)]
    (copy / "metrics.jsonl").write_text("\n".join(changed) + "\n")
    problems: list[str] = journal([copy], tmp_path / "again")["problems"]
    return problems


def test_check_says_which_words_of_the_page_are_other_ones(run: Path, tmp_path: Path) -> None:
    journal([run], tmp_path / "j")
    auc = f"{read_json(run / 'evaluations' / 'valid.json')['metrics']['auc']['value']:.3f}"
    for name in ("journal.md", "journal.html"):
        page = tmp_path / "j" / name
        page.write_text(page.read_text().replace(auc, "0.999"))
    problems = check([run], tmp_path / "j")["problems"]
    for name in ("journal.md", "journal.html"):
        assert any(p.startswith(f"{name} says") and "0.999" in p and auc in p for p in problems)


def test_every_page_has_the_nine_chapters_filled_or_saying_what_to_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, paths in (("run", [run]), ("store", [Path(_store_of(run))])):
        html = Path(journal(paths, tmp_path / name)["journal"]).read_text()
        bodies = re.split(r'<h2 id="c\d"', html)[1:]
        assert len(bodies) == 9
        for body in bodies:
            filled = re.search(r"<table|<figure|<pre", body)
            told = re.search(r"<p>[^<]*(ot measured|o audit)[^<]*<code>histoproof ", body)
            assert filled or told, body[:300]


def _store_of(run: Path) -> str:
    return str(yaml.safe_load((run / "config.yaml").read_text())["data"]["store"])


def test_twins_are_found_and_compared(run: Path, store: Path, tmp_path: Path) -> None:
    train(config(tmp_path, store, MLP), out=tmp_path / "twin")
    train(config(tmp_path, store, MLP), ["seed=9"], out=tmp_path / "other")
    html = Path(journal([run, tmp_path / "twin", tmp_path / "other"], tmp_path / "j")["journal"]).read_text()
    assert len(re.findall(r"Yes: all \d+ steps are identical", html)) == 1
    assert "Identical to run one, bit for bit" in html
    assert "identical, bit for bit" in html.split("<nav")[0]


def test_a_repository_is_told_as_git_knows_it_and_its_config_runs_nothing(tmp_path: Path) -> None:
    repository, witness = tmp_path / "the group's", tmp_path / "ran"
    repository.mkdir()

    def git(*words: str, name: str = "Ada") -> None:
        who = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", name), ("EMAIL", "x@y"))
        }
        subprocess.run(
            ["git", "-C", str(repository), *words], check=True, capture_output=True, env={**os.environ, **who}
        )

    git("init", "-q", "-b", "main")
    git("commit", "--allow-empty", "-qm", "first <b>|`x`")
    git("checkout", "-qb", "side")
    (repository / ".github" / "workflows").mkdir(parents=True)
    (repository / ".github" / "workflows" / "ci.yml").write_text("on: push\n")
    git("add", ".")
    git("commit", "-qm", "checks", name="Grace|Hopper")
    git("checkout", "-q", "main")
    git("merge", "-q", "--no-ff", "-m", "merged", "side")
    for key in ("core.fsmonitor", "core.pager", "gpg.program", "filter.f.clean", "diff.external", "core.sshCommand"):
        git("config", key, f"touch {witness}")
    git("config", "log.showSignature", "true")
    (repository / ".gitattributes").write_text("* filter=f\n")
    (repository / ".github" / "workflows" / "ci.yml").write_text("on: pull_request\n")
    made = journal([repository], tmp_path / "j")
    html, markdown = (Path(made[name]).read_text() for name in ("journal", "markdown"))
    for page in (html, markdown):
        assert "Hopper" in page
        assert ".github/workflows/ci.yml" in page
    assert re.search(r"Merges</th><td>1</td>", html)
    assert "<b>" not in html
    assert not witness.exists()
    with pytest.raises(DataError, match="git cannot read"):
        (tmp_path / "empty").mkdir()
        subprocess.run(["git", "-C", str(tmp_path / "empty"), "init", "-q"], check=True)
        journal([tmp_path / "empty"], tmp_path / "k")


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        shutil.copytree(run, tmp_path / folder / "run")
    html = Path(journal([tmp_path / "a" / "run", tmp_path / "b" / "run"], tmp_path / "j")["journal"]).read_text()
    assert "a/run" in html
    assert "b/run" in html
    assert len(set(re.findall(r'\bid="([^"]+)"', html))) == len(re.findall(r'\bid="([^"]+)"', html))
