"""What to plant, where and how much: the typed spec of `data poison`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...specfile import SpecSection
from ..pcam import SplitName

__all__ = [
    "BadLabel",
    "Blank",
    "ClassImbalance",
    "Copy",
    "CrossCopy",
    "FilePlant",
    "GroupOverlap",
    "LabelFlip",
    "LengthMismatch",
    "NearCopy",
    "NonInteger",
    "OutOfRange",
    "Outlier",
    "PatchPlant",
    "Plant",
    "PoisonSpec",
    "SplitSwapped",
    "Truncated",
    "Values",
    "WholeFile",
    "WrongShape",
]

Share = Annotated[float, Field(gt=0, le=1)]


class PatchPlant(SpecSection):
    """A fault in single patches of a split."""

    split: SplitName
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the split's patches to change."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Or how many."""
    of: Literal["positive", "negative", "any"] = "any"
    """Which label the changed patches have; of copies: the patches copied."""

    @model_validator(mode="after")
    def _one_amount(self) -> "PatchPlant":
        if (self.rate is None) == (self.count is None):
            raise ValueError("give either rate (a share of the split's patches) or count (how many)")
        return self


class Values(PatchPlant):
    """Values that are not numbers, or infinite."""

    kind: Literal["nan", "infinite"]
    share: Share = 0.01
    """Share of a patch's 27,648 values; at least one."""


class OutOfRange(PatchPlant):
    """Values no pixel can have."""

    kind: Literal["out_of_range"]
    share: Share = 0.01
    """Share of a patch's 27,648 values; at least one."""
    values: list[float] = Field(default=[1e5, -3.0, 256.0], min_length=1)
    """Each patch gets one of these, below 0 or above 255."""

    @model_validator(mode="after")
    def _outside(self) -> "OutOfRange":
        for value in self.values:
            if 0 <= value <= 255:
                raise ValueError(f"{value:g} in values is within 0-255; give numbers below 0 or above 255")
        return self


class NonInteger(PatchPlant):
    """Values between two whole numbers."""

    kind: Literal["non_integer"]
    share: Share = 0.01
    """Share of a patch's 27,648 values; at least one."""


class Blank(PatchPlant):
    """Patches without tissue: black, or white."""

    kind: Literal["blackout", "washout"]
    level: Annotated[int, Field(ge=0, le=255)] | None = None
    """The value of every pixel; null: 0 (blackout), 255 (washout)."""
    noise: Annotated[int, Field(ge=0, le=3)] = 0
    """Each value is shifted by up to +- this."""


class Copy(PatchPlant):
    """A patch becomes a copy of another one."""

    kind: Literal["duplicate", "duplicate_dihedral", "label_conflict"]
    source: Annotated[SplitName | None, Field(alias="from")] = None
    """The split the copied patch is in; null: the same."""

    @model_validator(mode="after")
    def _apart(self) -> "Copy":
        if self.kind == "duplicate" and self.source not in {None, self.split}:
            raise ValueError(f"a duplicate is within one split; from: {self.source} makes it a cross_split_duplicate")
        return self


class CrossCopy(PatchPlant):
    """A patch becomes a copy of one in another split."""

    kind: Literal["cross_split_duplicate"]
    source: Annotated[SplitName, Field(alias="from")]
    """The split the copied patch is in."""

    @model_validator(mode="after")
    def _apart(self) -> "CrossCopy":
        if self.source == self.split:
            raise ValueError(f"from must be another split than {self.split}")
        return self


class NearCopy(PatchPlant):
    """A patch becomes a slightly changed copy of another one."""

    kind: Literal["near_duplicate"]
    source: Annotated[SplitName | None, Field(alias="from")] = None
    """The split the copied patch is in; null: the same."""
    how: Literal["jpeg", "brightness", "shift", "mixed"] = "mixed"
    """mixed: one of the three for each patch."""
    jpeg_quality: list[int] = Field(default=[70, 95], min_length=2, max_length=2)
    """The lowest and the highest quality of re-encoding."""
    brightness: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Every value times 1 +- up to this, at least a fifth of it."""
    shift: Annotated[int, Field(ge=1, le=16)] = 2
    """Pixels, up to this many in each direction; the edge is repeated."""

    @model_validator(mode="after")
    def _range(self) -> "NearCopy":
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 95:
            raise ValueError(f"jpeg_quality {self.jpeg_quality} is not [lowest, highest] within 1 to 95")
        return self


class LabelFlip(PatchPlant):
    """The label becomes the opposite; what an audit can only suspect."""

    kind: Literal["label_flip"]


class BadLabel(PatchPlant):
    """The label becomes neither 0 nor 1."""

    kind: Literal["bad_label"]
    value: Annotated[int, Field(ge=2, le=255)] = 2
    """What the label becomes."""


class Outlier(PatchPlant):
    """A patch that looks like no other: much too bright or dark, without colour, out of focus, of another stain."""

    kind: Literal["outlier"]
    how: Literal["brightness", "saturation", "blur", "stain", "mixed"] = "mixed"
    """mixed: one of the four for each patch."""


class FilePlant(SpecSection):
    """A fault of a whole split or file."""

    split: SplitName


class WholeFile(FilePlant):
    """x in float32, without chunks and compression: four times the bytes for the same patches."""

    kind: Literal["dtype_bloat"]


class ClassImbalance(FilePlant):
    """Patches of one class are left out. Rows move up; the other plants count in the new rows."""

    kind: Literal["class_imbalance"]
    of: Literal["positive", "negative"] = "positive"
    """The class that becomes rare."""
    ratio: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Its share of the split afterwards."""


class LengthMismatch(FilePlant):
    """y lacks its last labels."""

    kind: Literal["length_mismatch"]
    by: Annotated[int, Field(ge=1)] = 1
    """How many labels are missing."""


class WrongShape(FilePlant):
    """x has another shape than (N, 96, 96, 3)."""

    kind: Literal["wrong_shape"]
    how: Literal["channels_first", "flat", "cropped"] = "channels_first"
    """(N, 3, 96, 96), (N, 27648) or (N, 64, 64, 3)."""


class Truncated(FilePlant):
    """A file is cut short."""

    kind: Literal["truncated_file"]
    file: Literal["x", "y", "meta"] = "x"
    """Which of the split's files."""
    at: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The share of its bytes that is left."""


class SplitSwapped(SpecSection):
    """All files of valid and test are exchanged; the other plants count in the split that is written."""

    kind: Literal["split_swapped"]


class GroupOverlap(FilePlant):
    """Patches of `split` get a slide (wsi) of another split in their meta.csv."""

    kind: Literal["group_overlap"]
    source: Annotated[SplitName, Field(alias="from")]
    """The split whose slide is used; it has meta.csv, too."""
    slides: Annotated[int, Field(ge=1)] = 1
    """How many slides of `split` are renamed."""

    @model_validator(mode="after")
    def _apart(self) -> "GroupOverlap":
        if self.source == self.split:
            raise ValueError(f"from must be another split than {self.split}")
        return self


Plant = Annotated[
    Values
    | OutOfRange
    | NonInteger
    | Blank
    | Copy
    | CrossCopy
    | NearCopy
    | LabelFlip
    | BadLabel
    | Outlier
    | WholeFile
    | ClassImbalance
    | LengthMismatch
    | WrongShape
    | Truncated
    | SplitSwapped
    | GroupOverlap,
    Field(discriminator="kind"),
]


class PoisonSpec(SpecSection):
    """A poisoned copy: what is planted, and how it is written."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Another seed, other patches."""
    splits: Annotated[list[SplitName], Field(min_length=1)] | None = None
    """The splits to copy; null: all that are there."""
    dtype: Literal["uint8", "float32", "keep"] = "keep"
    """Type of the pixels on disk; what uint8 cannot hold (nan, infinite, out_of_range, non_integer) forces float32."""
    compression: Literal["gzip", "lzf", "none", "keep"] = "keep"
    """keep: chunks and filters as in the source. gzip, lzf: each patch a chunk. none: one contiguous array."""
    plant: list[Plant] = Field(default=[])
    """The faults, in order: patches are drawn for the first one first."""
