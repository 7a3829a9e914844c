"""What is published about the official PatchCamelyon files: sizes, checksums, counts.

Source: Zenodo record 2546921 (Veeling et al. 2018), with the md5 rows of valid and test corrected: the dataset's own README
prints them swapped, which its author confirmed to be a copy/paste mistake.
"""

from dataclasses import dataclass
from typing import Literal

from .pcam import SplitName, official_name

__all__ = [
    "COUNTS",
    "COURSE_COUNTS",
    "DUPLICATES",
    "META_MD5",
    "OFFICIAL",
    "SLIDE_PREFIX",
    "ZENODO",
    "OfficialFile",
    "recognise",
]

ZENODO = "https://zenodo.org/records/2546921/files"

Part = Literal["x.h5", "y.h5", "meta.csv"]


@dataclass(frozen=True)
class OfficialFile:
    """One published file: the bytes and md5 of the .gz, and the md5 of the .h5 inside it."""

    split: SplitName
    part: Literal["x.h5", "y.h5"]
    gz_bytes: int
    gz_md5: str
    md5: str

    @property
    def name(self) -> str:
        """The unpacked file's name."""
        return official_name(self.split, self.part)


OFFICIAL = (
    OfficialFile("train", "x.h5", 6421353462, "1571f514728f59376b705fc836ff4b63", "01844da899645b4d6f84946d417ba453"),
    OfficialFile("train", "y.h5", 21378, "35c2d7259d906cfc8143347bb8e05be7", "0781386bf6c2fb62d58ff18891466aca"),
    OfficialFile("valid", "x.h5", 805965320, "d5b63470df7cfa627aeec8b9dc0c066e", "81cf9680f1724c40673f10dc88e909b1"),
    OfficialFile("valid", "y.h5", 3038, "2b85f58b927af9964a4c15b8f7e8f179", "94d8aacc249253159ce2a2e78a86e658"),
    OfficialFile("test", "x.h5", 800875929, "d8c2d60d490dbd479f8199bdfa0cf6ec", "2614b2e6717d6356be141d9d6dbfcb7e"),
    OfficialFile("test", "y.h5", 3040, "60a7035772fbdb7f34eb86d4420cf66a", "11ed647efe9fe457a4eb45df1dba19ba"),
)
META_MD5: dict[SplitName, str] = {
    "train": "5a3dd671e465cfd74b5b822125e65b0a",
    "valid": "67589e00a4a37ec317f2d1932c7502ca",
    "test": "3455fd69135b66734e1008f3af684566",
}
"""md5 of the official meta CSVs."""

COUNTS: dict[SplitName, int] = {"train": 262_144, "valid": 32_768, "test": 32_768}
"""Patches in the official splits."""
COURSE_COUNTS: dict[SplitName, int] = {"train": 157_286, "valid": 32_768}
"""A known subset: 60 % of train, stored as float32 without compression."""
DUPLICATES: dict[SplitName, int] = {"train": 42_119, "valid": 4_660, "test": 3_385}
"""Exact copies in the official splits (rows less unique rows), as published."""
SLIDE_PREFIX: dict[SplitName, str] = {
    "train": "camelyon16_train_",
    "valid": "camelyon16_train_",
    "test": "camelyon16_test_",
}
"""How the `wsi` column of each split begins."""


def recognise(md5: str) -> tuple[OfficialFile, Literal["compressed", "unpacked"]] | None:
    """The official file with this md5, and in which form; None for any other."""
    for file in OFFICIAL:
        if md5 == file.gz_md5:
            return file, "compressed"
        if md5 == file.md5:
            return file, "unpacked"
    return None
