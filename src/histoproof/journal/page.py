"""From evidence to pages: journal.html (figures inside it), journal.md (figures in assets/), journal.json (digests)."""

import html
import re
import shlex
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from .. import __version__
from ..data.partition import open_part
from ..data.store import open_store
from ..errors import DataError
from ..files import sha256_file, write_bytes, write_json, write_text
from ..yamlfile import parse_value
from . import figures
from .audit import AuditEvidence, audit_gallery, audit_patches
from .dose import DoseEvidence, dose_figure
from .evidence import RunEvidence
from .translate import translator

__all__ = ["write_pages"]

_METRICS = (
    "auc",
    "average_precision",
    "f2",
    "recall",
    "precision",
    "specificity",
    "f1",
    "accuracy",
    "balanced_accuracy",
    "ece",
    "nll",
    "brier",
)


def write_pages(
    runs: Sequence[RunEvidence],
    out: Path,
    lang: str,
    studies: Sequence[DoseEvidence] = (),
    audits: Sequence[AuditEvidence] = (),
) -> list[str]:
    """Write the journal's files into `out`; returns their names relative to it."""
    words = _words(lang)
    sections: list[dict[str, Any]] = []
    assets: dict[str, bytes] = {}
    for number, run in enumerate(runs, start=1):
        drawn = {
            name: figures.render(draw, f"r{number}-{name}-svg") for name, draw in _figures(run, words["figure"]).items()
        }
        pngs = {name: f"assets/{number:02d}-{_slug(run.name)}-{name}.png" for name in drawn}
        assets |= {pngs[name]: png for name, (_, png) in drawn.items()}
        sections.append(_section(run, {name: Markup(svg) for name, (svg, _) in drawn.items()}, pngs))
    doses = _doses(studies, words["figure"], assets)
    context = {
        "runs": sections,
        "audits": _audits(audits, words["figure"], assets),
        "doses": doses,
        "words": words,
        "lang": lang,
        "version": __version__,
        "metrics": _METRICS,
    }
    templates = _templates(lang, words)
    names = ["journal.html", "journal.md", *assets]
    write_text(out / "journal.html", templates.get_template("page.html.j2").render(context))
    write_text(out / "journal.md", _tidy(templates.get_template("page.md.j2").render(context)))
    for name, png in assets.items():
        write_bytes(out / name, png)
    read = [path for part in (audits, runs, studies) for found in part for path in found.files]
    evidence = {str(path.absolute()): sha256_file(path) for path in read}
    write_json(out / "journal.json", {"histoproof": __version__, "lang": lang, "files": names, "evidence": evidence})
    return names


def _figures(run: RunEvidence, words: dict[str, Any]) -> dict[str, Callable[[], Figure]]:
    """The figures that the run's evidence can make."""
    found: dict[str, Callable[[], Figure]] = {}
    if run.epochs:
        found["curves"] = lambda: figures.curves(run, words)
    if len(run.steps["step"]):
        found["gradients"] = lambda: figures.gradients(run, words)
    if run.spikes and run.spikes["spikes"]:
        data = run.config["data"]
        images = open_part(open_store(run.store), "train", data["partition"], data["fold"]).images
        found["gallery"] = lambda: figures.gallery(run, images, words)
    for split, evaluation in run.evaluations.items():
        found[f"confusion-{split}"] = lambda e=evaluation: figures.confusion(e, words)  # type: ignore[misc]
        if evaluation["metrics"]["auc"]["value"] is not None:
            predictions = run.predictions[split]
            found[f"ranking-{split}"] = lambda p=predictions, e=evaluation: figures.ranking(p, e, words)  # type: ignore[misc]
    return found


def _section(run: RunEvidence, svgs: dict[str, Markup], pngs: dict[str, str]) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "run": run,
        "svg": svgs,
        "png": pngs,
        "pack_command": None
        if manifest is None
        else shlex.join(["histoproof", "data", "pack", manifest["source"]["folder"], "--out", str(run.store)]),
        "partition": None if manifest is None else _partition(run, manifest),
        "commands": {split: _evaluate_command(run, found) for split, found in run.evaluations.items()},
        "evidence": _digests(run.files),
        "source_bytes": None if manifest is None else _source_bytes(manifest),
    }


def _partition(run: RunEvidence, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The partition that the run used, with the counts of its train and valid and the command that made it."""
    name, fold = run.config["data"]["partition"], run.config["data"]["fold"]
    made = manifest.get("partitions", {}).get(name)
    if made is None:
        return None
    parts, by = made["parts"], made["groups"]
    roles = parts
    if made["kind"] == "folds":
        rest = [count for part, count in parts.items() if part != str(fold)]
        train = {key: sum(count[key] for count in rest) for key in ("n", "positive", "groups")}
        roles = {"train": train, "valid": parts[str(fold)]}
    asked = ",".join(f"{part}={fraction!r}" for part, fraction in made["asked"].items())
    how = ["--folds", str(len(parts))] if made["kind"] == "folds" else ["--fractions", asked]
    column = by["column"] if by["csv"] is None else f"{by['csv']}:{by['column']}"
    which = ["--groups", column] if by["column"] else []
    command = ["histoproof", "data", "split", str(run.store), *which, *how, "--from", ",".join(made["from"])]
    return {
        "name": name,
        "fold": fold,
        "pool": " + ".join(made["from"]),
        "groups": by["column"],
        "train": roles["train"],
        "valid": roles["valid"],
        "command": shlex.join([*command, "--name", name, "--seed", str(made["seed"])]),
    }


def _doses(studies: Sequence[DoseEvidence], words: dict[str, Any], assets: dict[str, bytes]) -> list[dict[str, Any]]:
    """The studies with their figures; their PNGs are added to `assets`."""
    found = []
    for number, study in enumerate(studies, start=1):
        svg, png = figures.render(lambda s=study: dose_figure(s.content, words), f"d{number}-svg")  # type: ignore[misc]
        name = f"assets/dose-{number:02d}-{_slug(study.name)}.png"
        assets[name] = png
        found.append({"study": study, "svg": Markup(svg), "png": name})
    return found


def _audits(audits: Sequence[AuditEvidence], words: dict[str, Any], assets: dict[str, bytes]) -> list[dict[str, Any]]:
    """The audits with their galleries; `gallery` is "shown", "none" (no patch has a finding) or "gone" (the folder is). Their
    PNGs are added to `assets`."""
    found = []
    for number, audit in enumerate(audits, start=1):
        section: dict[str, Any] = {
            "audit": audit,
            "svg": None,
            "png": None,
            "gallery": None,
            "evidence": _digests(audit.files),
        }
        try:
            rows = audit_patches(audit)
        except DataError:
            section["gallery"] = "gone"
        else:
            section["gallery"] = "shown" if rows else "none"
            if rows:
                svg, png = figures.render(lambda r=rows: audit_gallery(r, words), f"a{number}-svg")  # type: ignore[misc]
                name = f"assets/audit-{number:02d}-{_slug(audit.name)}.png"
                assets[name] = png
                section |= {"svg": Markup(svg), "png": name}
        found.append(section)
    return found


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    return {str(path): sha256_file(path) for path in paths}


def _evaluate_command(run: RunEvidence, found: dict[str, Any]) -> str:
    """The command that makes an evaluation as it is."""
    words = ["histoproof", "evaluate", str(run.path), "--split", found["split"]]
    if (found["tta"] == "d4") != (run.config["evaluate"]["tta"] == "d4"):
        words.append("--tta" if found["tta"] == "d4" else "--no-tta")
    if Path(found["store"]).absolute() != run.store:
        words += ["--store", found["store"]]
    if found.get("reason"):
        words += ["--open-test", found["reason"]]
    return shlex.join(words)


def _source_bytes(manifest: dict[str, Any]) -> dict[str, int]:
    """Bytes of each split's official pixel file."""
    sizes = {file["name"]: file["bytes"] for file in manifest["source"]["files"]}
    return {split: sizes.get(f"camelyonpatch_level_2_split_{split}_x.h5", 0) for split in manifest["splits"]}


def _templates(lang: str, words: dict[str, Any]) -> Environment:
    environment = Environment(
        loader=PackageLoader("histoproof.journal", "templates"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    comma = lang == "nl"

    def number(value: float | None, digits: int = 3) -> str:
        if value is None:
            return "–"
        text = f"{value:.{digits}f}"
        return text.replace(".", ",") if comma else text

    def count(value: int) -> str:
        return f"{value:,}".replace(",", "." if comma else ",")

    translate = translator(words["audit"]["texts"], comma=comma)
    environment.filters |= {"number": number, "count": count, "cell": _cell, "plain": _plain, "translate": translate}
    return environment


def _cell(text: Any) -> str:
    """Text that can break neither a Markdown table nor the page it is shown in."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")


def _plain(text: Any) -> str:
    """Text of others that Markdown shows as it is: nothing in it makes a link, an image, a table's column or a heading."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"[|\\`*\[\]!#~]|(?<!\w)_|_(?!\w)", lambda mark: f"&#{ord(mark.group())};", line)


def _words(lang: str) -> dict[str, Any]:
    text = resources.files("histoproof.journal").joinpath("words", f"{lang}.yaml").read_text(encoding="utf-8")
    words: dict[str, Any] = parse_value(text)  # YAML 1.2: `on` and `no` are words
    return words


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def _tidy(markdown: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", markdown).strip() + "\n"
