"""Figures of a study take plain rows: whatever states are in them, equal rows give equal bytes, and all is said."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from histoproof.drawing import render
from histoproof.search.figures import draw, history, importance_bars, parallel, slices
from histoproof.search.spec import SpaceSpec
from histoproof.specfile import parse_spec

SPACE = {
    key: dimension.model_dump(mode="json", by_alias=True)
    for key, dimension in parse_spec(
        {
            "space": {
                "optim.lr": {"low": 1e-4, "high": 0.1, "log": True},
                "optim.name": {"choices": ["sgd", "adamw"]},
                "optim.momentum": {"low": 0.5, "high": 0.9, "when": {"optim.name": "sgd"}},
                "model.hidden": {"choices": [[64, 32], [8]]},
                "train.epochs": {"low": 3.0, "high": 3.0, "int": True},
            }
        },
        SpaceSpec,
    ).space.items()
}


def row(point: int, state: str, value: float | None, **params: Any) -> dict[str, Any]:
    base = {"optim.lr": 0.01, "optim.name": "adamw", "model.hidden": [8], "train.epochs": 3}
    return {"point": point, "number": point, "state": state, "value": value, "params": base | params}


ROWS = [
    row(0, "complete", 0.7),
    row(1, "complete", 0.8, **{"optim.name": "sgd", "optim.momentum": 0.7}),
    row(2, "pruned", 0.6, **{"model.hidden": [64, 32]}),
    row(3, "pruned", None),
    row(4, "failed", None, **{"optim.lr": 0.1}),
    row(5, "retried", None),
    row(6, "running", None),
    row(7, "complete", 0.75),
]


def texts(figure: Figure) -> str:
    found = [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]  # type: ignore[attr-defined]
    return "\n".join(found)


def ys(line: Any) -> list[float]:
    return [float(y) for y in line.get_ydata()]


def test_history_shows_the_best_so_far_and_marks_pruned_and_failed() -> None:
    figure = history(ROWS, "auc")
    best = next(line for line in figure.axes[0].lines if line.get_label() == "best so far")
    assert ys(best) == [0.7, 0.8, 0.8]
    lowest = next(line for line in history(ROWS, "nll", lower=True).axes[0].lines if line.get_label() == "best so far")
    assert ys(lowest) == [0.7, 0.7, 0.7]
    said = texts(figure)
    for part in ("n = 5 trials", "valid auc", "pruned, last epoch's (1)", "failed (1)", "complete (3)"):
        assert part in said


def test_parallel_coordinates_have_a_line_a_trial_and_an_axis_a_key() -> None:
    figure = parallel(ROWS, "auc", SPACE)
    through = [ys(line) for line in figure.axes[0].lines if len(ys(line)) == len(SPACE)]
    assert len(through) == 5
    assert all(0 <= y <= 1 for heights in through for y in heights)
    said = texts(figure)
    for part in ("n = 3 complete trials; grey: 2 pruned", "optim.momentum", "[64,32]", "0.0001", "valid auc"):
        assert part in said


def test_slices_have_a_panel_a_key() -> None:
    figure = slices(ROWS, "auc", SPACE)
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == list(SPACE)
    assert "n = 4 trials" in texts(figure)


def test_importances_are_shares_or_the_reason_why_not() -> None:
    shares = {"method": "functional ANOVA", "n": 12, "values": {"optim.lr": 0.9, "optim.name": 0.1}}
    said = texts(importance_bars(shares))
    assert "0.90" in said
    assert "n = 12 complete trials" in said
    assert "not measured: 3 complete trials" in texts(
        importance_bars(
            {"method": "functional ANOVA", "n": 3, "values": None, "why": "not measured: 3 complete trials"}
        )
    )


@pytest.mark.parametrize(
    "rows", [[], ROWS[2:3], ROWS[4:5], ROWS[:1], ROWS], ids=["none", "pruned", "failed", "one", "all"]
)
def test_any_rows_can_be_drawn_and_equal_rows_give_equal_bytes(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    result = {
        "trials": rows,
        "metric": "auc",
        "direction": "maximize",
        "space": SPACE,
        "importances": {"method": "functional ANOVA", "n": 0, "values": None, "why": "not measured"},
    }
    draw(tmp_path, result)
    assert len(list(tmp_path.glob("*.svg"))) == len(list(tmp_path.glob("*.png"))) == 4
    svg, png = render(lambda: history(rows, "auc"), "history")
    assert (tmp_path / "history.svg").read_text() == svg
    assert (tmp_path / "history.png").read_bytes() == png
    assert re.search(r"20\d\d-\d\d-\d\d", svg) is None
