"""What was found, in sentences."""

from typing import Any

__all__ = ["in_words", "mix_words", "score_words", "slice_words"]

_NAMES = {"auc": "AUC", "cross_auc": "AUC against all", "ece": "ECE", "bias": "probability less rate of tumour"}
_MOST = 10


def in_words(result: dict[str, Any]) -> list[str]:
    """The lines that the command prints."""
    family, whole = result["family"], result["whole"]
    over = "patches" if result["units"] is None else f"{result['units']['count']} groups ({result['units']['column']})"
    lines = [
        f"{result['split']}: n = {result['n']}, {result['positive']} positive, threshold {result['threshold']:g}, "
        f"95 % intervals over {over}",
        "whole: "
        + ", ".join(score_words(name, whole[name]) for name in ("accuracy", "auc", "recall", "specificity", "ece")),
        f"{family['slices']} slices looked at; p-values are corrected for all {family['tests']} tests ({family['method']}, "
        f"{family['permutations']} draws); they assume that {family['assumes']}",
    ]
    rows = result["slices"]
    if not rows:
        lines.append(f"no slice has {family['least']} patches and leaves as many: nothing to compare")
    flagged = [row for row in rows if row["worst"] in row["flagged"]]
    if flagged:
        shown = "" if len(flagged) <= _MOST else f"; the first {_MOST}"
        lines.append(
            f"{len(flagged)} slices are worse than their rest in accuracy or AUC against all, "
            f"corrected p < {family['alpha']}{shown}:"
        )
        lines += [f"  {row['rank']}. {slice_words(row)}" for row in flagged[:_MOST]]
    elif rows:
        lines.append("no slice is shown to be worse than its rest in accuracy or AUC against all; the foremost:")
        lines += [f"  {slice_words(row)}" for row in rows[:3]]
    for name, meaning in (("recall", "tumour is missed"), ("specificity", "normal tissue is called tumour")):
        worse = sorted((row for row in rows if name in row["flagged"]), key=lambda row: -row["tests"][name]["z"])
        if worse:
            lines.append(f"{len(worse)} slices in which {meaning} more often (corrected p < {family['alpha']}), e.g.:")
            lines += [f"  {slice_words(row, name)}" for row in worse[:3]]
    lines += [mix_words(row) for row in result["mixes"][:3] if row["recall"]["worst"]["value"] is not None]
    if result["unseen"]:
        row = result["unseen"][0]
        lines.append(
            f"unseen: if every tumour patch of {row['rule']} (n = {row['n']}) were missed, accuracy would fall by "
            f"{row['accuracy_lost']:.3f}, within its interval, and recall by {row['recall_lost']:.3f}"
        )
    if result["saliency"] is not None:
        for name, share in result["saliency"]["centre_share"].items():
            if share["value"] is not None:
                said = f"{share['value']:.3f}" + _range(share)
                lines.append(
                    f"saliency in the centre 32x32 px, {name.replace('_', ' ')} (n = {share['n']}): {said}; chance 0.111"
                )
    if result["columns_left_out"]:
        lines.append(f"not cut by, for their many values: {', '.join(result['columns_left_out'])}")
    return lines


def slice_words(row: dict[str, Any], name: str | None = None) -> str:
    """One slice: how many, the score that gives it away (or the one named), the rest's, and how sure."""
    size = f"{row['n']} patches, {row['positive']} positive" + (f", {row['groups']} groups" if row["groups"] else "")
    name = name or row["worst"]
    if name is None:
        return f"{row['rule']}: {size}: too few to be tested"
    value, rest, p = score_words(name, row["scores"][name]), row["rest"][name], row["tests"][name]["p_corrected"]
    against = "" if rest is None else f", rest {rest:.3f}"
    if row.get("like"):
        size += f", mostly those of rank {row['like']['rank']}"
    other = "specificity" if name == "recall" else "recall"
    return f"{row['rule']}: {size}: {value}{against}, corrected p {p:.3g}; {score_words(other, row['scores'][other])}"


def score_words(name: str, interval: dict[str, Any]) -> str:
    """A score with its interval; what is undefined says so, with why."""
    if interval["value"] is None:
        why = interval.get("why") or "undefined"
        return why if "undefined" in why else f"{_NAMES.get(name, name)} undefined: {why}"
    return f"{_NAMES.get(name, name)} {interval['value']:.3f}{_range(interval)}"


def mix_words(row: dict[str, Any]) -> str:
    """What the worst mix of a factor's slices does."""
    recall, accuracy, unnoticed = row["recall"], row["accuracy"], row["unnoticed"]
    text = (
        f"mix: were the slices of {row['factor']} up to {row['bound']:g} times as frequent or as rare, recall would be "
        f"{recall['worst']['value']:.3f}{_range(recall['worst'])} instead of {recall['now']:.3f}"
    )
    if accuracy["worst"]["value"] is not None:
        text += f", accuracy {accuracy['worst']['value']:.3f} instead of {accuracy['now']:.3f}"
    if unnoticed["worst"]["value"] is not None:
        text += f"; with accuracy inside its interval, recall {unnoticed['worst']['value']:.3f}"
    return text


def _range(interval: dict[str, Any]) -> str:
    return "" if interval["low"] is None else f" ({interval['low']:.3f} to {interval['high']:.3f})"
