"""What drift is, in sentences."""

from typing import Any

from ..factors import factor_of

__all__ = ["factor_words", "said", "verdict"]

_VERDICTS = {
    "stain": "this looks like another scanner or stain: the colours of haematoxylin and eosin are others",
    "light": "this looks like another brightness: lamp, exposure or white balance of a scanner",
    "focus": "this looks like another sharpness: out of focus, blurred, or scaled from another resolution",
    "compression": "this looks like another compression: a grid of 8 px, as JPEG leaves it",
    "content": "this looks like other tissue, under the same light and stain",
    "novelty": "some patches are unlike any of the training set, though no single number moved",
}


def verdict(result: dict[str, Any]) -> str:
    """One sentence."""
    if not result["drift"]:
        if result["least_detectable"] > max(0.5, result["effect"]):
            return f"no drift is shown, but {result['n']} patches are too few to show any but the crudest"
        return "no drift: these patches look like the training set"
    if result["leading"] is None:
        return (
            "the model's scores moved, and no factor did: another share of tumour, or something that no factor measures"
        )
    leading = next(row for row in result["factors"] if row["name"] == result["leading"])
    return str(_VERDICTS[leading["family"]])


def said(result: dict[str, Any]) -> list[str]:
    """The lines that the command prints."""
    score = result["score"]
    lines = [
        result["verdict"],
        f"{result['n']} patches against {result['reference']['n']} of train; drift: distance of at least {result['effect']:g} "
        f"and corrected p < {result['alpha']:g}; {result['assumes']}",
    ]
    rows = [row for row in result["factors"] if row["flagged"]]
    rows.sort(key=lambda row: row["name"] != result["leading"])
    if score is not None and score["flagged"]:
        rows.append(score)
    lines += [factor_words(row) for row in rows or result["factors"][:1]]
    if score is None:
        lines.append("the model's scores have nothing to be held against: the run has no predictions on valid")
    if result["least_detectable"] > result["effect"]:
        lines.append(
            f"with {result['n']} patches only a distance of {result['least_detectable']:.2f} or more can be told from chance"
        )
    return lines


def factor_words(row: dict[str, Any]) -> str:
    """How one number moved."""
    factor = factor_of(row["name"])
    higher = row["more"] >= 0.5
    if factor is None:
        way = "are called tumour more often" if higher else "are called tumour less often"
    else:
        way = factor.more if higher else factor.less
    shift = "" if row["shift"] is None else f", {row['shift']:+.1f} spreads"
    moved = f"median {row['reference']['median']:.3g} -> {row['new']['median']:.3g} {row['unit']}{shift}"
    sure = f"distance {row['ks']:.2f}, PSI {row['psi']:.2f}, corrected p {_p(row['p_corrected'])}"
    return (
        f"{row['name']}: the patches {way} ({moved}; {sure})" if row["flagged"] else f"{row['name']}: {moved}; {sure}"
    )


def _p(p: float) -> str:
    return f"{p:.2g}" if p > 1e-99 else "< 1e-99"
