"""Which files are these: official ones (by md5, compressed or unpacked), a known subset (by its counts), or others."""

import hashlib
from pathlib import Path
from typing import Any

from .findings import Finding
from .officials import COUNTS, COURSE_COUNTS, META_MD5, OFFICIAL, recognise
from .pcam import SPLITS, SplitName, official_name
from .sources import Source

__all__ = ["CHECKSUM_RULE", "identify", "known_counts"]

CHECKSUM_RULE = (
    "md5 of labels, metadata and of files with an official size; of pixels where the labels or metadata beside them are "
    "official, or with --checksums"
)
_SMALL = 64 << 20


def identify(folder: Path, sources: list[Source], checksums: bool | None) -> tuple[list[dict[str, Any]], list[Finding]]:
    """([{"name", "bytes", "split", "md5", "is"}], findings) for the files under official names, .gz included.

    `md5` is null where it was not taken: `checksums` False takes none, True all, None (the default) follows CHECKSUM_RULE.
    """
    counts = {source.name: source.n for source in sources}
    files: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for split in SPLITS:
        official = False
        for part in ("y.h5", "meta.csv", "x.h5"):  # small files first: they say whether the large one is worth its md5
            for suffix in ("", ".gz"):
                path = folder / (official_name(split, part) + suffix)
                if not path.is_file():
                    continue
                size = path.stat().st_size
                worth = size < _SMALL if part != "x.h5" else official and not suffix
                worth = worth or size in {file.gz_bytes for file in OFFICIAL}
                md5 = _md5(path) if (checksums or (checksums is None and worth)) else None
                words, owner = _words(md5)
                official = official or owner is not None
                files.append({"name": path.name, "bytes": size, "split": split, "md5": md5, "is": words})
                findings += _judge(path, split, part, md5, owner, official)
                if part == "x.h5" and split in counts and owner is None:
                    files[-1]["is"] = "; ".join(filter(None, (words, known_counts(split, counts[split]))))
    return files, findings


def known_counts(split: SplitName, n: int) -> str:
    """What the number of patches says, in words."""
    if n == COUNTS[split]:
        return f"{n:,} patches, as many as the official {split} split"
    if n == COURSE_COUNTS.get(split):
        return f"{n:,} patches: the course's subset, {n / COUNTS[split]:.0%} of the official {split} split's {COUNTS[split]:,}"
    if n < COUNTS[split]:
        return f"{n:,} patches, {n / COUNTS[split]:.1%} of the official {split} split's {COUNTS[split]:,}"
    return f"{n:,} patches, more than the official {split} split's {COUNTS[split]:,}"


def _words(md5: str | None) -> tuple[str, SplitName | None]:
    """What a file is in words, and the split it belongs to if it is official."""
    if md5 is None:
        return "md5 not taken", None
    found = recognise(md5)
    if found:
        file, form = found
        note = "; gunzip it" if form == "compressed" else ""
        return f"the official {file.name}, {form}{note}", file.split
    for split, expected in META_MD5.items():
        if md5 == expected:
            return f"the official {official_name(split, 'meta.csv')}", split
    return "not an official file by its md5", None


def _judge(path: Path, split: str, part: str, md5: str | None, owner: str | None, official: bool) -> list[Finding]:
    if owner is not None and owner != split:
        words = (
            f"{path.name} is the official file of {owner} (md5 {md5}): the splits are swapped. The dataset's own README prints "
            "the md5 rows of valid and test in each other's place"
        )
        return [Finding("split_swapped", "error", split, None, words)]
    if part == "x.h5" and md5 is not None and owner is None and official:
        words = f"labels or metadata are the official ones, {path.name} is not (md5 {md5}): saved again, or changed"
        return [Finding("checksum_mismatch", "warning", split, None, words)]
    return []


def _md5(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return None
