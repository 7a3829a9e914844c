"""The journal's sixth chapter says what `slices` and `drift` found, in two languages, and notices what does not fit."""

import re
import shutil
from pathlib import Path

import pytest

from histoproof.drift import drift
from histoproof.errors import DataError
from histoproof.files import digest_of, read_json, write_json
from histoproof.journal import check, journal
from histoproof.slices import slices
from histoproof.train import train

from .test_train import MLP, config


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its slices, and beside it a drift report of valid."""
    folder = tmp_path_factory.mktemp("journal slices")
    train(config(folder, store, MLP), out=folder / "run")
    slices(folder / "run", permutations=99, gallery=3, saliency=True)
    drift(folder / "run", [store / "valid"], out=folder / "drift")
    return folder / "run"


@pytest.mark.parametrize("lang", ["en", pytest.param("nl", marks=pytest.mark.slow)])
def test_a_run_brings_its_slices_and_both_pages_hold_their_numbers(run: Path, tmp_path: Path, lang: str) -> None:
    made = journal([run, run.parent / "drift"], tmp_path / "j", lang=lang)  # type: ignore[arg-type]
    found, moved = read_json(run / "slices" / "slices.json"), read_json(run.parent / "drift" / "drift.json")
    values = [row["scores"]["cross_auc"] for row in found["slices"][:10]] + list(
        found["saliency"]["centre_share"].values()
    )
    texts = [f"{v['value']:.3f}" for v in values if v["value"] is not None] + [
        f"{row['ks']:.2f}" for row in moved["factors"]
    ]
    pages = [Path(made[name]).read_text() for name in ("journal", "markdown")]
    for page in pages:
        for text in texts:
            assert (text.replace(".", ",") if lang == "nl" else text) in page
        for row in found["slices"][:10]:
            assert row["rule"].replace("<", "&lt;").replace(">", "&gt;") in page or row["rule"] in page
    assert made["problems"] == []
    assert check([run, run.parent / "drift"], tmp_path / "j") == {"ok": True, "problems": []}
    shown = sum(bool(one["patches"]) for one in found["galleries"])
    assert pages[0].count('<svg role="img"') == len(re.findall(r"!\[", pages[1])) >= 2 * shown + 4


def test_slices_of_other_predictions_are_a_contradiction(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    content = read_json(copy / "slices" / "slices.json") | {"run": str(copy)}
    content["slices_sha256"] = digest_of(content, "slices_sha256")
    write_json(copy / "slices" / "slices.json", content)
    (copy / "predictions" / "valid.npz").write_bytes((copy / "predictions" / "valid.npz").read_bytes() + b" ")
    problems = journal([copy], tmp_path / "j")["problems"]
    assert any("slices.json was made from other predictions" in problem for problem in problems)


def test_an_edited_number_or_pixel_is_refused(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run / "slices", tmp_path / "slices"))
    text = (copy / "slices.json").read_text()
    (copy / "slices.json").write_text(text.replace('"rank": 1,', '"rank": 2,', 1))
    with pytest.raises(DataError, match=r"slices\.json was changed after it was written"):
        journal([copy], tmp_path / "j")
    (copy / "slices.json").write_text(text)
    content = bytearray((copy / "galleries.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "galleries.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"galleries\.npz is not what slices\.json was written with"):
        journal([copy], tmp_path / "j")


@pytest.mark.parametrize("name", ["galleries.npz", "slices.json"])
def test_damaged_slices_are_refused_in_words(run: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(run / "slices", tmp_path / "slices"))
    (copy / name).write_bytes((copy / name).read_bytes()[:50])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        journal([copy], tmp_path / "j")


def test_without_slices_the_chapter_says_what_to_run(store: Path, tmp_path: Path) -> None:
    html = Path(journal([store], tmp_path / "j")["journal"]).read_text()
    chapter = html.split('<h2 id="c6"')[1].split('<h2 id="c7"')[0]
    assert "histoproof slices RUN" in chapter
    assert "histoproof drift RUN PATH" in chapter
