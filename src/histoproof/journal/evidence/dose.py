"""Dose-response in the journal: a study's evidence, and its figure."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ...errors import DataError
from ...files import read_json

__all__ = ["DoseEvidence", "dose_figure", "is_dose", "read_dose"]

_COLOURS = {"exclude": "#1f5fa8", "include": "#d9730d"}


@dataclass(frozen=True)
class DoseEvidence:
    """A finished dose-response study as its folder tells it."""

    path: Path
    content: dict[str, Any]
    """dose.json."""
    problems: list[str]
    """Where dose.json and the runs it was made from contradict each other."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def command(self) -> str:
        """The command that made it."""
        found = self.content
        return shlex.join(["histoproof", "dose", found["spec_file"], "--data", found["data"], "--out", str(self.path)])

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return (self.path / "dose.json", *(path for path in self.summaries if path.is_file()))

    @property
    def summaries(self) -> list[Path]:
        """The summaries of its runs."""
        return [self.path / run / "summary.json" for run in sorted({row["run"] for row in self.content["rows"]})]


def is_dose(path: Path) -> bool:
    """Whether a folder holds a dose-response study."""
    begun = (path / "study.json").is_file() and not (path / "journal.log").is_file()  # a search has a study.json, too
    return begun or (path / "dose.json").is_file()


def read_dose(path: Path) -> DoseEvidence:
    """Read a study's folder. Raises DataError if it is not finished, or damaged."""
    if not (path / "dose.json").is_file():
        raise DataError(f"the study {path} is not finished: it has no dose.json", next="go on with `histoproof dose`")
    content = read_json(path / "dose.json")
    try:
        problems = [problem for row in content["rows"] if (problem := _contradiction(path, row))]
        return DoseEvidence(path, content, list(dict.fromkeys(problems)))
    except (KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path / 'dose.json'} is damaged: {type(e).__name__} {e}", next="run the study again") from e


def _contradiction(path: Path, row: dict[str, Any]) -> str | None:
    summary = path / row["run"] / "summary.json"
    if not summary.is_file() or row["auc"] is None:
        return None
    if read_json(summary)["best"]["intervals"]["auc"]["value"] != row["auc"]:
        return f"{path / 'dose.json'}: the AUC of {row['run']} is not what its summary.json says"
    return None


def dose_figure(content: dict[str, Any], words: dict[str, Any]) -> Figure:
    """Valid AUC against the rate: a row of panels a model, a panel a poison, a line with and one without quarantine.

    A point is the mean over seeds with its 95 % interval; at rate 0 stands the clean train split.
    """
    points = content["points"]
    models = list(dict.fromkeys(p["model"] for p in points))
    poisons = [name for name in dict.fromkeys(p["poison"] for p in points) if name != "clean"]
    figure = Figure(figsize=(max(2.1 * len(poisons), 4.6), 2.6 * len(models) + 0.4), layout="constrained")
    grid = figure.subplots(len(models), len(poisons), squeeze=False, sharey="row")
    for model, row in zip(models, grid, strict=True):
        for poison, axes in zip(poisons, row, strict=True):
            for quarantine, colour in _COLOURS.items():
                line = sorted(
                    (
                        p
                        for p in points
                        if p["model"] == model and p["quarantine"] == quarantine and p["poison"] in {"clean", poison}
                    ),
                    key=lambda p: p["rate"],
                )
                if not any(p["rate"] for p in line):  # this model was not given this poison
                    continue
                rate = [p["rate"] for p in line]
                axes.fill_between(
                    rate, [p["low"] for p in line], [p["high"] for p in line], color=colour, alpha=0.15, lw=0
                )
                style = "o-" if quarantine == "exclude" else "s--"
                label = words[f"dose_{quarantine}"]
                axes.plot(rate, [p["auc"] for p in line], style, color=colour, ms=3.5, lw=1.3, label=label)
            axes.set_title(poison, loc="left", fontsize=9.5, fontweight="bold")
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            if not axes.lines:
                axes.text(
                    0.5, 0.5, words["dose_absent"], ha="center", transform=axes.transAxes, color="#8a8f98", fontsize=8.5
                )
        row[0].set_ylabel(f"{model}\n{words['auc_title']}")
    for axes in grid[-1]:
        axes.set_xlabel(words["dose_rate"])
    handles, labels = next(axes for row in grid for axes in row if axes.lines).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return figure
