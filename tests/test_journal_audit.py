"""The journal's data chapter says what the audit found, in two languages, and nothing that the audit wrote can break the page."""

import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from histoproof.cli import app
from histoproof.data.audit import audit, write_audit
from histoproof.data.pack import pack
from histoproof.data.poison import poison
from histoproof.errors import DataError
from histoproof.files import canonical, read_json, sha256_file, write_json
from histoproof.journal import check, journal
from histoproof.journal.evidence.audit import read_audit
from histoproof.journal.translate import translator

from .conftest import REPOSITORY
from .test_cli import histoproof

SPEC = """
seed: 1
plant:
  - {kind: nan, split: train, count: 8}
  - {kind: blackout, split: train, count: 3}
  - {kind: duplicate, split: train, count: 2}
  - {kind: duplicate_dihedral, split: valid, from: train, count: 2}
  - {kind: cross_split_duplicate, split: train, from: valid, count: 4}
  - {kind: label_conflict, split: train, count: 2}
  - {kind: bad_label, split: train, count: 1}
  - {kind: group_overlap, split: train, from: valid, slides: 1}
"""
HOSTILE = "<script>alert(1)</script> | ![x](http://example.com/y) `code` </td> *so* \\| [a](javascript:b)\n## new"


@pytest.fixture(scope="module")
def audited(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of a poisoned copy, which lies beside it."""
    folder = tmp_path_factory.mktemp("audited")
    (folder / "spec.yaml").write_text(SPEC)
    poison(official, folder / "bad", folder / "spec.yaml")
    write_audit(audit(folder / "bad"), folder / "audit")
    return folder / "audit"


def pages(paths: list[Path], out: Path, lang: str = "en") -> tuple[str, str]:
    made = journal(paths, out, lang=lang)  # type: ignore[arg-type]
    return Path(made["journal"]).read_text(), Path(made["markdown"]).read_text()


def count(value: int, lang: str) -> str:
    return f"{value:,}".replace(",", "." if lang == "nl" else ",")


def forged(audited: Path, folder: Path, change: Any) -> Path:
    """A copy of an audit after `change` of its content, findings.jsonl in step."""
    content = read_json(audited / "audit.json")
    change(content)
    folder.mkdir()
    write_json(folder / "audit.json", content)
    (folder / "findings.jsonl").write_text("".join(canonical(f) + "\n" for f in content.get("findings", [])))
    return folder


@pytest.mark.parametrize("lang", ["en", "nl"])
def test_the_page_holds_every_count_of_the_audit(audited: Path, tmp_path: Path, lang: str) -> None:
    content = read_json(audited / "audit.json")
    words = yaml.safe_load((REPOSITORY / f"src/histoproof/journal/words/{lang}.yaml").read_text())["audit"]
    html, markdown = pages([audited], tmp_path / lang, lang)
    size = content["size"]
    numbers = [size["bytes"], size["as_uint8"], *(row["bytes"] for row in size["rows"])]
    numbers += [row["bytes"] for split in size["splits"].values() for row in split["rows"]]
    numbers += [split[key] for split in content["splits"].values() for key in ("n", "positive", "bytes")]
    numbers += [file["bytes"] for file in content["files"]]
    for page in (html, markdown):
        cells = set(re.findall(r"-?\d[\d.,]*\d|\d", re.sub(r"</?\w[^>]*>|[|*]", " ", page)))
        assert {count(number, lang) for number in numbers} <= cells
        assert f"{size['factor']:.2f}".replace(".", "," if lang == "nl" else ".") in page
        for file in content["files"]:
            assert file["name"] in page
            assert file["md5"] is None or file["md5"] in page
    for (severity, kind), n in Counter((f["severity"], f["kind"]) for f in content["findings"]).items():
        level = f"**{words['severity']['error']}**" if severity == "error" else words["severity"][severity]
        assert f"| {level} | `{kind}` | {count(n, lang)} | {words['meaning'][kind]} |" in markdown
        assert words["meaning"][kind] in html.replace("&#39;", "'")


def test_the_command_makes_the_same_audit_again(audited: Path, tmp_path: Path) -> None:
    html, markdown = pages([audited], tmp_path / "j")
    command = read_audit(audited).command
    assert command in markdown
    assert command in html
    words = command.split()[1:]
    words[-1] = str(tmp_path / "again")
    assert CliRunner().invoke(app, words).exit_code == 1  # it has errors
    for name in ("audit.json", "findings.jsonl"):
        assert sha256_file(tmp_path / "again" / name) == sha256_file(audited / name)


def test_options_stand_in_the_command(official: Path, tmp_path: Path) -> None:
    write_audit(audit(official, checksums=False), tmp_path / "a b")
    command = read_audit(tmp_path / "a b").command
    assert command == f"histoproof data audit {official} --no-checksums --out '{tmp_path / 'a b'}'"


def test_leakage_is_counted_within_and_across_splits_or_said_to_be_unknown(audited: Path, tmp_path: Path) -> None:
    _, markdown = pages([audited], tmp_path / "j")
    findings = read_json(audited / "audit.json")["findings"]
    kinds = Counter(f["kind"] for f in findings)
    assert f"| The same pixels | **{kinds['duplicate']}** | **{kinds['cross_split_duplicate']}** |" in markdown
    turned = Counter(f["severity"] for f in findings if f["kind"] == "duplicate_dihedral")
    assert turned["error"] == 2
    assert "| The same patch, rotated or flipped | none found | **2** |" in markdown
    assert f"| The same patch with both labels | **{kinds['label_conflict']}** | none found |" in markdown
    assert "| Groups in several splits (wsi) | – | **1** |" in markdown
    assert (
        "| Almost the same patch | not checked: not asked for (--near) | not checked: not asked for (--near) |"
        in markdown
    )


def test_what_goes_into_quarantine_is_what_packing_puts_there(audited: Path, tmp_path: Path) -> None:
    packed = pack(audited.parent / "bad", tmp_path / "store")
    quarantined = sum(split["quarantined"] for split in packed["splits"].values())
    assert read_audit(audited).condemned == quarantined
    assert f"{quarantined} patches have an error." in pages([audited], tmp_path / "j")[1]
    write_audit(audit(tmp_path / "store"), tmp_path / "of the store")
    html, markdown = pages([tmp_path / "of the store"], tmp_path / "k")
    for page in (html, markdown):
        assert f"{quarantined} patches are in this store" in page
        assert "not by md5" in page


def test_equal_evidence_gives_equal_bytes_and_check_notices_an_edit(audited: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(audited, copy)
    one, two = journal([copy], tmp_path / "a"), journal([copy], tmp_path / "b")
    assert any(name.endswith(".png") for name in one["files"])
    for name in one["files"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert one["files"] == two["files"]
    assert one["problems"] == []
    assert check([copy], tmp_path / "a") == {"ok": True, "problems": []}
    content = read_json(copy / "audit.json")
    content["findings"].pop()
    write_json(copy / "audit.json", content)
    problems = check([copy], tmp_path / "a")["problems"]
    assert any("evidence was changed" in p and "audit.json" in p for p in problems)
    assert any("journal.html is not what the evidence says now" in p for p in problems)
    assert journal([copy], tmp_path / "c")["problems"] == [f"{copy / 'findings.jsonl'} is not what audit.json says"]


def test_sums_that_do_not_add_up_are_contradictions(audited: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["size"]["rows"][0]["bytes"] += 1
        content["errors"] = False

    folder = forged(audited, tmp_path / "forged", change)
    problems = journal([folder], tmp_path / "j")["problems"]
    assert len(problems) == 2
    assert "do not add up" in problems[1]
    assert "contradicts itself" in (tmp_path / "j" / "journal.html").read_text()
    assert CliRunner().invoke(app, ["journal", str(folder), "--out", str(tmp_path / "j")]).exit_code == 1


def test_a_folder_that_is_gone_is_said_to_be(audited: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["folder"] = str(tmp_path / "nowhere")

    folder = forged(audited, tmp_path / "moved", change)
    for lang, words in (("en", "is not on this machine"), ("nl", "staat niet op deze machine")):
        html, markdown = pages([folder], tmp_path / lang, lang)
        for page in (html, markdown):
            assert words in page
            assert str(tmp_path / "nowhere") in page
        assert "<svg" not in html


def test_an_audited_file_that_was_changed_since_is_a_contradiction(official: Path, tmp_path: Path) -> None:
    shutil.copytree(official, tmp_path / "data")
    write_audit(audit(tmp_path / "data"), tmp_path / "audit")
    with (tmp_path / "data" / "camelyonpatch_level_2_split_train_meta.csv").open("a") as file:
        file.write("more\n")
    (problem,) = journal([tmp_path / "audit"], tmp_path / "j")["problems"]
    assert "train_meta.csv was changed after the audit" in problem


def test_without_findings_it_says_that_nothing_was_found(official: Path, tmp_path: Path) -> None:
    write_audit(audit(official), tmp_path / "audit")
    for lang, words in (("en", "Nothing was found."), ("nl", "Er is niets gevonden.")):
        html, markdown = pages([tmp_path / "audit"], tmp_path / lang, lang)
        for page in (html, markdown):
            assert words in page
        assert "<svg" not in html


def test_hostile_words_break_neither_page(audited: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for finding in content["findings"]:
            finding["detail"] = HOSTILE
        for file in content["files"]:
            file["is"] = HOSTILE
        content["checks"][0] |= {"what": HOSTILE, "rule": HOSTILE}
        content["splits"]["train"]["groups"] = {HOSTILE: 3}
        content["folder"] = "/x/<script>alert(2)</script>"

    clean = pages([audited], tmp_path / "clean")
    html, markdown = pages([forged(audited, tmp_path / "hostile", change)], tmp_path / "j")
    assert "<script" not in html
    assert "alert(1)" in html
    assert _tags(html)["td"] == _tags(clean[0])["td"]
    prose = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", markdown)  # commands, in code spans, show what they hold
    assert "<script" not in prose
    assert "![x](" not in prose
    assert "](javascript:" not in prose
    assert "\n## new" not in prose
    assert _columns(markdown) == _columns(clean[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("size"),
        lambda content: content["findings"][0].update(kind="gremlins"),
        lambda content: content["findings"][0].update(index="3"),
        lambda content: content["splits"]["train"].update(n=0),
        lambda content: content["splits"]["train"].pop("dtype"),
        lambda content: content["checks"].append("x"),
        lambda content: content.clear(),
    ],
)
def test_a_damaged_audit_is_refused_in_words(audited: Path, tmp_path: Path, change: Any) -> None:
    folder = forged(audited, tmp_path / "damaged", change)
    with pytest.raises(DataError, match=r"audit\.json is damaged"):
        journal([folder], tmp_path / "j")
    assert not (tmp_path / "j").exists()


def test_an_audit_that_was_cut_short_is_refused_in_words(audited: Path, tmp_path: Path) -> None:
    shutil.copytree(audited, tmp_path / "cut")
    text = (tmp_path / "cut" / "audit.json").read_bytes()
    (tmp_path / "cut" / "audit.json").write_bytes(text[: len(text) // 2])
    done = histoproof("journal", tmp_path / "cut", "--out", tmp_path / "j")
    assert done.returncode == 2
    assert "not readable JSON" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_figure_is_followed_by_its_command_and_links_lead_somewhere(audited: Path, tmp_path: Path) -> None:
    html, _ = pages([audited], tmp_path / "j")
    assert html.count("<svg") == 1
    for after in html.split("</figure>")[1:]:
        assert after.lstrip().startswith('<p class="command">made by <code>')
    targets = set(re.findall(r'\bid="([^"]*)"', html))
    assert {link.removeprefix("#") for link in re.findall(r'href="(#[^"]*)"', html)} <= targets


def test_dutch_knows_every_rule_of_an_audit(audited: Path, official: Path, store: Path) -> None:
    words = yaml.safe_load((REPOSITORY / "src/histoproof/journal/words/nl.yaml").read_text())
    translate = translator(words["texts"], comma=True)
    results = [read_json(audited / "audit.json"), audit(official, checksums=True), audit(store, checksums=False)]
    sentences = {text for r in results for c in r["checks"] for text in (c["what"], c["rule"])}
    sentences |= {file["is"] for r in results for file in r["files"]}
    assert {text for text in sentences if translate(text) == text} <= {"--no-checksums"}
    assert {row["cause"] for r in results for row in r["size"]["rows"]} <= set(words["audit"]["causes"])


def test_what_a_translation_does_not_know_stays_as_it_is() -> None:
    translate = translator([["{} of {} apples", "{} van {} appels"], ["no pears", "geen peren"]], comma=True)
    assert translate("1,234.5 of 2% apples; no pears; plums") == "1.234,5 van 2% appels; geen peren; plums"


class _Counting(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1


def _tags(html: str) -> Counter[str]:
    parser = _Counting()
    parser.feed(html)
    return parser.tags


def _columns(markdown: str) -> list[int]:
    """Columns of each line of a table, headings apart."""
    return [line.count("|") for line in markdown.splitlines() if line.startswith("|")]
