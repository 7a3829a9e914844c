"""The journal's chapter on searches and champions says what their folders say, and notices what does not fit."""

import json
import re
import shutil
from pathlib import Path

import pytest

from histoproof import ledger
from histoproof.champion import champion
from histoproof.evaluate import evaluate
from histoproof.files import read_json, write_json
from histoproof.journal import check, journal
from histoproof.search import search

CONFIG = """
seed: 42
data: {store: STORE}
model: {name: mlp, hidden: [8]}
train: {epochs: 2, batch_size: 64}
evaluate: {bootstrap: 100, batch_size: 32}
"""
SPACE = """
space:
  optim.lr: {low: 1e-4, high: 0.02, log: true}
  optim.name: {choices: [sgd, adamw]}
sampler: {name: random}
pruner: {name: none}
"""


@pytest.fixture(scope="module")
def study(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of 11 trials, its champion, and the one look at test."""
    folder = tmp_path_factory.mktemp("journal champion")
    own = Path(shutil.copytree(store, folder / "store"))
    (folder / "c.yaml").write_text(CONFIG.replace("STORE", json.dumps(str(own))))
    (folder / "space.yaml").write_text(SPACE)
    search(folder / "c.yaml", folder / "space.yaml", 11, folder / "study")
    champion(folder / "study")
    evaluate(folder / "study" / "champion", split="test")
    return folder / "study"


@pytest.mark.parametrize("lang", ["en", "nl"])
def test_a_search_brings_its_champion_and_every_number_of_both(study: Path, tmp_path: Path, lang: str) -> None:
    made = journal([study], tmp_path / "j", lang=lang)  # type: ignore[arg-type]
    pages = [Path(made[name]).read_text() for name in ("journal", "markdown")]
    found, frozen = read_json(study / "search.json"), read_json(study / "champion" / "champion.json")
    test = read_json(study / "champion" / "evaluations" / "test.json")
    chosen, cooled = frozen["choice"], frozen["calibration"]
    numbers = [row["value"] for row in found["trials"]]
    texts = [f"{value:.4f}" for value in numbers]
    values = [
        chosen["threshold"],
        chosen["chosen"]["recall"],
        chosen["half"]["f2"],
        cooled["before"]["ece"],
        cooled["after"]["nll"],
    ]
    values += [row["difference"] for rows in frozen["comparison"].values() for row in rows] + [test["metrics"]["auc"]]
    texts += [f"{v['value']:.3f}" for v in values if v["value"] is not None]
    texts += [f"{row['primary']:.3f}" for row in frozen["seeds"]["rows"]]
    for page in pages:
        for text in texts:
            assert (text.replace(".", ",") if lang == "nl" else text) in page
        assert frozen["champion_sha256"] in page
    assert made["problems"] == []
    assert pages[0].count("<svg") == len(re.findall(r"!\[", pages[1]))
    assert check([study], tmp_path / "j") == {"ok": True, "problems": []}


def test_the_ledger_says_that_a_champion_opened_test_once(study: Path, tmp_path: Path) -> None:
    html = Path(journal([study], tmp_path / "j")["journal"]).read_text()
    assert "Opened once." in html
    assert re.search(r"a champion <code>[0-9a-f]{12}</code>", html)


def test_a_ledger_with_an_edited_byte_is_told_by_its_line(study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study.parent, tmp_path / "copy")) / "study"
    text = (copy / "config.yaml").read_text()  # the copy's own store
    for file in copy.parent.rglob("config.yaml"):
        file.write_text(file.read_text().replace(str(study.parent), str(copy.parent)))
    assert text
    path = ledger.path_of(copy.parent / "store")
    path.write_text(path.read_text().replace("frozen champion", "frozen Champion"))
    run = next((copy / "trials").iterdir())
    problems = journal([run], tmp_path / "j")["problems"]
    assert any(f"{path}:1" in problem for problem in problems)
    html = (tmp_path / "j" / "journal.html").read_text()
    assert re.search(r'class="warning"[^>]*>The ledger was changed', html)


def test_a_champion_or_a_search_that_was_changed_is_a_contradiction(study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "study"))
    content = read_json(copy / "search.json")
    content["trials"][3]["value"] = 0.999
    write_json(copy / "search.json", content)
    file = copy / "champion" / "champion.json"
    file.write_text(file.read_text().replace('"threshold": 0.', '"threshold": 0.1', 1))
    problems = journal([copy], tmp_path / "j")["problems"]
    assert any("trial 3 has 0.999" in problem for problem in problems)
    assert any("champion.json was changed after the champion was frozen" in problem for problem in problems)
