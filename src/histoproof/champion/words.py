"""A champion in words, for the terminal."""

from pathlib import Path
from typing import Any

__all__ = ["champion_words"]

_SHOWN = 5
_KEYS = 6


def champion_words(content: dict[str, Any], out: Path) -> list[str]:
    """The content of champion.json as lines: champion, selection, seeds, calibration, threshold, comparison, what comes next."""
    return [
        f"champion: {out} ({content['model']}, seed {content['seed']}, {out / content['run']})",
        *_selection(content),
        *_seeds(content),
        *_calibration(content),
        *_threshold(content),
        *_comparison(content),
        f"champion_sha256 {content['champion_sha256']}",
        f"the test split is sealed; this champion may open it: histoproof evaluate {out} --split test",
    ]


def _selection(content: dict[str, Any]) -> list[str]:
    chosen, by = content["selection"], content["primary"]
    corrected = (
        ".632-corrected" if chosen["winner"]["runs"][0]["corrected"] else "not corrected: valid is too small for that"
    )
    at = "" if by in ("auc", "average_precision") else f" at each one's own threshold, {corrected}"
    lines = [
        f"best of {_of(content)} ({chosen['runs']} finished; {chosen['unfinished']} unfinished, "
        f"{len(chosen['left_out'])} left out) by {by} on valid{at}, then AUC:"
    ]
    for place, row in enumerate(chosen["ranking"][:_SHOWN], start=1):
        differs = ", ".join(f"{key}={row['config'][key]}" for key in _telling(row, chosen["ranking"]))
        lines.append(f"  {place}. {by} {_plain(row['primary'])}, AUC {_plain(row['auc'])}  {row['model']} {differs}")
    if len(chosen["ranking"]) > _SHOWN:
        lines.append(f"  and {len(chosen['ranking']) - _SHOWN} more in selection.json")
    return lines


def _telling(row: dict[str, Any], ranking: list[dict[str, Any]]) -> list[str]:
    """The first few config keys that tell a candidate from others of the same model."""
    alike = [other for other in ranking if other["model"] == row["model"]]
    return [key for key in row["config"] if len({repr(other["config"][key]) for other in alike}) > 1][:_KEYS]


def _seeds(content: dict[str, Any]) -> list[str]:
    seeds, by = content["seeds"], content["primary"]
    names = ", ".join(str(row["seed"]) for row in seeds["rows"])
    lines = [f"retrained with new seeds {names}; frozen: seed {content['seed']}, the median"]
    for name, s in seeds["scores"].items():
        interval = (
            f"95 % t interval {_plain(s['low'])} to {_plain(s['high'])}" if s["low"] is not None else s.get("why", "")
        )
        lines.append(
            f"  {name}: mean {_plain(s['mean'])}, sd {_plain(s['sd'])}, n = {s['n']}, {interval}; "
            f"the search had {_plain(seeds['promised'].get(name))}"
        )
    if content["selection"]["candidates"] > 1:
        lines.append(f"  the mean is the honest {by}: the search's own was picked as the best of {_of(content)}")
    return lines


def _of(content: dict[str, Any]) -> str:
    n = content["selection"]["candidates"]
    return f"{n} candidate{'s' if n > 1 else ''}"


def _calibration(content: dict[str, Any]) -> list[str]:
    found = content["calibration"]
    lines = [f"calibration: temperature {_interval(found['temperature'])}"]
    for name in ("ece", "nll", "brier"):
        crossed = found["cross_fitted"].get(name)
        more = "" if crossed is None else f"; cross-fitted {crossed:.4f}"
        lines.append(f"  {name:6} {_interval(found['before'][name])} -> {_interval(found['after'][name])}{more}")
    return lines


def _threshold(content: dict[str, Any]) -> list[str]:
    choice, by = content["choice"], content["primary"]
    lines = [f"threshold: {_interval(choice['threshold'])}, by the rule: {choice['rule']}"]
    names = dict.fromkeys(
        ("recall", "specificity", "precision", "accuracy", *((by,) if by in choice["chosen"] else ()))
    )
    for name in names:
        expected = choice["corrected"].get(name)
        more = "" if expected is None else f", to expect on new patches {expected:.4f}"
        lines.append(
            f"  {name:17} {_interval(choice['chosen'][name])}{more}; at 0.5: {_plain(choice['half'][name]['value'])}"
        )
    return lines


def _comparison(content: dict[str, Any]) -> list[str]:
    groups = content["groups"]
    over = "patches" if groups is None else f"{groups['count']} groups ({groups['column']})"
    lines = [
        f"compared on the same {content['n']} valid patches, over {over}, each at its own threshold; champion - other, "
        "95 % interval, p after Holm over the whole table:"
    ]
    for name, rows in content["comparison"].items():
        lines.append(
            f"  {name}: {content['baselines'][name]['what']}, threshold {content['baselines'][name]['threshold']:.4g}"
        )
        for row in rows:
            p = "no p-value" if row["p_value"] is None else f"p {_p(row['p_value'])}, Holm {_p(row['p_holm'])}"
            difference = _interval(row["difference"], signed=True)
            lines.append(
                f"    {row['score']:17} {_plain(row['a'])} - {_plain(row['b'])} = {difference}, {p} ({row['method']})"
            )
    return [*lines, *(f"  {name}: left out: {why}" for name, why in content["skipped"].items())]


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _plain(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _interval(found: dict[str, Any], *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if found["value"] is None:
        return f"undefined: {found['why']}"
    if found["low"] is None:
        return f"{found['value']:{sign}.4f} (no interval: {found['why']})"
    return f"{found['value']:{sign}.4f} ({found['low']:{sign}.4f} to {found['high']:{sign}.4f})"
