"""An audit's result in words: what it is, what was found, what that means, what to do next, and where the bytes go."""

from typing import Any

__all__ = ["audit_words"]

_MEANING = {
    "nan": "values that are not numbers: one such patch makes the loss NaN, and every weight after it",
    "infinite": "infinite values: as NaN, they spread to every weight",
    "out_of_range": "values outside 0-255: not pixels; a gradient hundreds of times too large",
    "non_integer": "values between the whole numbers: not pixels as a scanner writes them; uint8 cannot hold them",
    "blackout": "patches without content, dark or grey, where the label still claims something",
    "washout": "patches without content, bright, flatter than real glass",
    "duplicate": "the same pixels several times in one split: they count more than once (the official files hold many)",
    "duplicate_dihedral": "the same patch rotated or flipped; across splits (error) that is leakage",
    "near_duplicate": "almost the same patch: re-encoded, brightened or shifted",
    "label_conflict": "the same patch with both labels: one of them is wrong, and nothing in the pixels says which",
    "cross_split_duplicate": "the same pixels in two splits: leakage, every score on the later split is too good",
    "group_overlap": "a group lies in several splits: leakage by slide or site, scores are too good",
    "class_imbalance": "accuracy alone misleads here; see data.sampling: balanced, and read recall and precision",
    "dtype_bloat": "more than one byte for a value that needs one: packing gives the bytes back and loses nothing",
    "wrong_shape": "not the dataset it should be",
    "length_mismatch": "which label belongs to which patch cannot be known",
    "bad_label": "labels that are neither 0 nor 1: never trained on",
    "outlier": "unlike the rest of its split: look at them; nothing says they are wrong",
    "truncated_file": "a damaged or incomplete file: fetch it again",
    "checksum_mismatch": "not the bytes that were vouched for",
    "split_swapped": "files under another split's name: the test split is not where it seems",
    "label_suspect": "a suspicion, ranked, never a proof: look at them",
}
_SHOWN = 6


def audit_words(result: dict[str, Any], out: str | None = None) -> list[str]:
    """Lines for people. `out` is the folder that the whole result was written to."""
    lines = [f"{result['folder']}: {result['kind']}", *_splits(result["splits"])]
    lines += _files(result["files"])
    findings = result["findings"]
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in findings:
        kinds.setdefault((finding["severity"], finding["kind"]), []).append(finding)
    lines.append("")
    if not findings:
        lines.append("nothing found")
    for (severity, kind), found in kinds.items():
        lines.append(f"{severity:7} {len(found):>7,} {kind}: {_MEANING[kind]}")
        lines += _where(found)
    lines += ["", *_size(result["size"]), "", *_not_done(result["checks"]), *_next(result, out)]
    return lines


def _splits(splits: dict[str, Any]) -> list[str]:
    lines = [f"  {'split':6} {'patches':>9} {'positive':>17} {'dtype':8} {'bytes on disk':>15}  layout"]
    for name, split in splits.items():
        positive = "no labels"
        if split["positive"] is not None:
            positive = f"{split['positive']:,} ({split['positive'] / split['n']:.1%})"
        layout = f"chunks {tuple(split['chunks'])}" if split["chunks"] else "contiguous"
        if split["filters"]:
            layout += ", " + " + ".join(split["filters"])
        layout += "".join(f"; {count} groups ({column})" for column, count in split["groups"].items())
        lines.append(f"  {name:6} {split['n']:>9,} {positive:>17} {split['dtype']:8} {split['bytes']:>15,}  {layout}")
    return lines


def _files(files: list[dict[str, Any]]) -> list[str]:
    return [f"  {file['name']}: {file['is']}" for file in files if file["name"].endswith(("x.h5", ".gz"))]


def _where(found: list[dict[str, Any]]) -> list[str]:
    """First few places of one kind, per split."""
    lines = []
    for split in dict.fromkeys(finding["split"] for finding in found):
        its = [finding for finding in found if finding["split"] == split]
        rows = [str(finding["index"]) for finding in its if finding["index"] is not None]
        if rows:
            more = f", and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
            lines.append(
                f"          {split} {', '.join(rows[:_SHOWN])}{more}; e.g. {split} {rows[0]}: {_detail(its, rows[0])}"
            )
        general = [finding["detail"] for finding in its if finding["index"] is None]
        lines += [f"          {split}: {detail}" for detail in general[:_SHOWN]]
        if len(general) > _SHOWN:
            lines.append(f"          {split}: and {len(general) - _SHOWN:,} more")
    return lines


def _detail(found: list[dict[str, Any]], row: str) -> str:
    return str(next(finding["detail"] for finding in found if str(finding["index"]) == row))


def _size(size: dict[str, Any]) -> list[str]:
    lines = [
        f"size: {size['bytes']:,} bytes on disk, {size['factor']:.2f} times the same patches as uint8 ({size['as_uint8']:,})"
    ]
    for name, split in size["splits"].items():
        lines += [f"  {name}: {row['bytes']:>17,}  {row['cause']}: {row['words']}" for row in split["rows"]]
        lines.append(f"  {name}: {split['bytes']:>17,}  together = bytes on disk ({split['factor']:.2f} x)")
        gzip = split["gzip"]
        if gzip["missing"]:
            lines.append(
                f"  {name}: {gzip['missing']:>17,}  of the pixels as uint8 are missing compression: gzip {gzip['level']}, "
                f"a patch a chunk, would leave {gzip['ratio']:.0%} (estimate from {gzip['n']} patches)"
            )
    return lines


def _not_done(checks: list[dict[str, Any]]) -> list[str]:
    done = [check["what"] for check in checks if check["done"]]
    return [
        "checked: " + ", ".join(done),
        *(f"not checked: {check['what']} ({check['rule']})" for check in checks if not check["done"]),
    ]


def _next(result: dict[str, Any], out: str | None) -> list[str]:
    where = f"each finding: {out}/findings.jsonl" if out else "each finding: --json, or --out FOLDER"
    errors = sum(finding["severity"] == "error" for finding in result["findings"])
    is_store = result["kind"] == "store"
    if not errors:
        advice = "no errors" if is_store else "no errors: pack them, `histoproof data pack DIR --out STORE`"
        return [*([where] if result["findings"] else []), advice]
    found = [f for f in result["findings"] if f["severity"] == "error" and f["index"] is not None]
    patches = {(f["split"], f["index"]) for f in found}
    words = f"{errors:,} errors, on {len(patches):,} patches" if patches else f"{errors:,} errors, about whole splits"
    if is_store:
        words += f"; {sum(split['quarantined'] for split in result['splits'].values()):,} patches are in this store's quarantine"
    elif patches:
        words += ": packing puts such patches into quarantine, and says so"
    return [where, words]
