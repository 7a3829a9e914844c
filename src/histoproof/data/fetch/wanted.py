"""What there is to fetch: names here and there, sizes, checksums, and what a wrong checksum tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..officials import OfficialFile
from ..pcam import SplitName, official_name

__all__ = ["Wanted", "known_md5", "not_it", "unpacked_at_most", "wanted_files"]

_META_AT_MOST = 64 << 20
"""Bytes a meta CSV can have: 262,144 rows of some 60 bytes are 16 MB."""


@dataclass(frozen=True)
class Wanted:
    """One file to fetch."""

    what: str
    """As people call it: "test_x"."""
    name: str
    """The target's name."""
    remote: str
    """The name at the source."""
    size: int | None
    """Bytes to transfer; unknown for the CSVs."""
    packed_md5: str
    """md5 of what is transferred."""
    md5: str
    """md5 of the target."""
    unpacked: int
    """Bytes on disk, at most."""
    sizes: frozenset[int] = frozenset()
    """Sizes of all official files: one of them may come under this one's name, and then its md5 is to tell."""

    @property
    def gz(self) -> bool:
        """Whether it comes packed."""
        return self.remote.endswith(".gz")

    def part(self, out: Path) -> Path:
        """Where in `out` the bytes lie that have come so far, as the server sent them."""
        return out / f"{self.remote}.part"

    @property
    def limit(self) -> int:
        """Bytes to transfer, at most."""
        return max(self.sizes, default=self.unpacked)


def wanted_files(splits: list[SplitName], files: Sequence[OfficialFile], meta: Mapping[SplitName, str]) -> list[Wanted]:
    """The small files first: a wrong source then shows before gigabytes have come."""
    found = [
        Wanted(f"{s}_meta", name, name, None, meta[s], meta[s], _META_AT_MOST)
        for s in splits
        if (name := official_name(s, "meta.csv")) and s in meta
    ]
    sizes = frozenset(f.gz_bytes for f in files)
    for part in ("y.h5", "x.h5"):
        found += [
            Wanted(_what(f), f.name, f"{f.name}.gz", f.gz_bytes, f.gz_md5, f.md5, unpacked_at_most(f), sizes)
            for s in splits
            for f in files
            if (f.split, f.part) == (s, part)
        ]
    return found


def unpacked_at_most(file: OfficialFile) -> int:
    """Bytes that an official file can have once unpacked.

    x: N x 27,648 bytes of pixels are 1.124 to 1.131 times the .gz; a fifth more than the .gz leaves room for HDF5's own. Stored
    compressed inside, x would be about as large as the .gz. y: no deflate stream unpacks to more than 1,032 times its size.
    """
    return file.gz_bytes * 6 // 5 + (1 << 20) if file.part == "x.h5" else file.gz_bytes * 1032


def known_md5(files: Sequence[OfficialFile], meta: Mapping[SplitName, str]) -> dict[str, str]:
    """{md5: what it is the md5 of}."""
    return {md5: _what(f) for f in files for md5 in (f.gz_md5, f.md5)} | {m: f"{s}_meta" for s, m in meta.items()}


def _what(file: OfficialFile) -> str:
    return f"{file.split}_{file.part.removesuffix('.h5')}"


def not_it(w: Wanted, md5: str, known: Mapping[str, str], expected: str) -> str:
    """Bytes with a wrong md5, in words."""
    if md5 in known:
        return f"this is the official {known[md5]}, under the name of {w.what} (md5 {md5})"
    return f"it is not the official {w.what}: md5 {md5} instead of {expected}"
