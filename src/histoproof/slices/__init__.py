"""Where a model fails: slices of a split by factors of its patches, the errors themselves, and what accuracy alone would miss."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import metrics, rng
from ..config import Config
from ..data.groups import group_labels_of
from ..data.partition import Part, Patches, open_part
from ..data.store import Store, open_store
from ..errors import ConfigError, DataError, HistoproofError, OutputError, writing
from ..evaluate import Predictions, load_predictions, look_at_test
from ..factors import FACTORS, columns_of, factor_table, parse_column, write_table
from ..factors.reference import load_or_measure, stored
from ..files import digest_of, read_json, sha256_file, write_bytes, write_json
from ..inference import TrainedModel, load_model
from ..provenance import command_line
from ..runs import Run, locked, open_run
from .cut import Column, column_of
from .family import TESTED
from .gallery import Gallery, as_npz, galleries
from .mix import BOUND, check_bound, silent, unseen
from .report import Settings, look
from .saliency import CHANCE, centre_share, occlusion
from .words import in_words

__all__ = ["slices"]

_SAMPLED = 32
"""Patches, of each class, by which it is told where the model looks when nothing is wrong."""


def slices(
    run: Path,
    *,
    split: Literal["valid", "test"] = "valid",
    groups: Sequence[str] = (),
    units: str | None = None,
    out: Path | None = None,
    store: Path | None = None,
    threshold: float | None = None,
    least: int = 20,
    pairs: bool = True,
    permutations: int = 1000,
    gallery: int = 12,
    saliency: bool = False,
    bound: float = BOUND,
    open_test: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Cut a split's predictions by every factor and say where the model is worse than on the rest.

    `groups` are further columns to cut by, COLUMN of meta.csv or CSV:COLUMN; `units` is what intervals and tests are over (the
    config's evaluate.groups if None). `store` and `threshold` replace the config's. A slice, and its rest, hold `least`
    patches. `gallery` patches of each kind are drawn; with `saliency` the model is loaded to tell where it looks, otherwise the
    predictions file is all that is read. `bound`: see `mix`. The test split needs `open_test`, a reason, which goes into the
    ledger.

    Writes OUT/slices.json (returned), OUT/figures/*.png and factors/, all specified in docs/slices.md; OUT is RUN/slices unless
    given. Raises DataError, ConfigError, RunError, SealedError, OutputError.
    """
    _check(least=least, permutations=permutations, gallery=gallery, threshold=threshold, bound=bound)
    folder = open_run(run)
    config = folder.load_config()
    seen = _opened(folder, config, split, store)
    unit_config = config.evaluate.groups if units is None else parse_column(seen.store, units)
    named = columns_of(seen.store, seen.patches, groups)
    labels = group_labels_of(seen.store, seen.patches, unit_config)
    model = load_model(run) if saliency else None
    place = run / "slices" if out is None else out
    _start(place, run, out, folder, seen, split, open_test)
    found = seen.predictions
    cutting = Settings(
        config.evaluate.threshold if threshold is None else threshold,
        least=least,
        pairs=pairs,
        permutations=permutations,
        replicates=config.evaluate.bootstrap,
        seed=config.seed,
    )
    cache = (run if out is None else out) / "factors"
    numbers = _factors(seen, config, cache, progress)
    columns, left_out = _columns(numbers, named, found.index)
    chosen = None if labels is None else labels[found.index]
    result = _numbers(seen, columns, cutting, chosen, bound)
    result |= {
        "run": str(run),
        "command": command_line(),
        "out": str(place),
        "units": None if chosen is None else {"column": unit_config.column, "count": len(np.unique(chosen))},
        "columns_left_out": left_out,
        "factors": {f.name: {"unit": f.unit, "formula": f.formula} for f in FACTORS if f.name in columns},
        "factors_file": str(cache / f"{split}.npz"),
    }
    drawn = galleries(found, seen.patches, columns, threshold=cutting.threshold, count=gallery)
    maps, result["saliency"] = _saliency(model, drawn, seen, config, progress)
    result["galleries"] = [{"name": one.name, "of": one.of, "patches": one.rows} for one in drawn]
    result["words"] = in_words(result)
    _write(place, result, drawn, maps)
    return result


@dataclass(frozen=True)
class _Seen:
    """What a run predicted, and the patches it predicted on."""

    store: Store
    train: Patches
    patches: Patches
    file: Path
    """The predictions."""
    digest: str
    """Its SHA-256."""
    evaluation: dict[str, Any]

    @cached_property
    def predictions(self) -> Predictions:
        """Read when first asked for: those on test hold its labels."""
        return load_predictions(self.file)


def _check(*, least: int, permutations: int, gallery: int, threshold: float | None, bound: float) -> None:
    if least < 2:
        raise ConfigError(f"least is {least}", valid="2 patches or more; 20 by default")
    if not 99 <= permutations <= 100_000:
        raise ConfigError(
            f"permutations is {permutations}",
            valid="99 to 100000: the smallest p-value is 1 / (permutations + 1)",
        )
    if gallery < 0:
        raise ConfigError(f"gallery is {gallery}", valid="0 or more patches")
    check_bound(bound)
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}", valid="0 to 1")


def _start(
    place: Path,
    run: Path,
    out: Path | None,
    folder: Run,
    seen: _Seen,
    split: str,
    reason: str | None,
) -> None:
    """See that there is a place to write to; write a look at test down; then read the labels, and see that they are whole."""
    new = not place.exists()
    _check_place(place, run, out)
    try:
        if split == "test":
            weights = str(seen.evaluation["weights_sha256"])
            look_at_test(seen.store, seen.patches, folder, reason, path=run, weights_sha256=weights, what="slices")
        if not len(seen.predictions.index):
            raise DataError(f"{seen.file} holds no predictions (n = 0)")
        seen.patches.verify()
    except HistoproofError:
        if new:
            place.rmdir()
        raise


def _opened(folder: Run, config: Config, split: Literal["valid", "test"], store: Path | None) -> _Seen:
    """A predictions file with its store, all digests held against each other."""
    path = folder.predictions(split)
    advice = f"histoproof evaluate {folder.path}" + ("" if split == "valid" else " --split test --open-test REASON")
    if not path.is_file() or not folder.evaluation(split).is_file():
        raise DataError(f"{folder.path} holds no predictions on {split}", next=f"make them with `{advice}`")
    evaluation, digest = read_json(folder.evaluation(split)), sha256_file(path)
    if not isinstance(evaluation, dict) or evaluation.get("predictions_sha256") != digest:
        raise DataError(
            f"{path} is not the file that {folder.evaluation(split)} scored", next=f"make both with `{advice}`"
        )
    opened = open_store(store or Path(config.data.store))
    if opened.content_sha256 != evaluation["store_sha256"]:
        raise DataError(
            f"{opened.path} is not the store that these predictions are of",
            valid="the same patches, labels and quarantine, wherever they lie",
            next="name it with --store",
        )
    part, train = (open_part(opened, role, config.data.partition, config.data.fold) for role in (split, "train"))
    if isinstance(part, Part) and part.sha256 != (evaluation.get("partition") or {}).get("sha256"):
        raise DataError(f"the partition {part.partition} is not the one that these predictions are of")
    return _Seen(opened, train, part, path, digest, evaluation)


def _check_place(place: Path, run: Path, out: Path | None) -> None:
    if place.exists() and not place.is_dir():
        raise OutputError(f"{place} is a file", next="give a folder with --out")
    if out is not None and place.is_dir() and any(place.iterdir()) and not (place / "slices.json").is_file():
        raise OutputError(f"{place} holds other files", next="give a new folder with --out")
    try:
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
    except OutputError as e:
        hint = f"{run} cannot be written to: choose another place with --out" if out is None else e.next
        raise OutputError(e.problem, next=hint) from e


def _factors(
    seen: _Seen, config: Config, cache: Path, progress: Callable[[int, int], None] | None
) -> dict[str, NDArray[np.float64]]:
    """{factor: (n,)} by the rows of the predictions; tables are kept in `cache`."""
    reference = load_or_measure(
        seen.store, seen.train, seen.train.rows(config.data.quarantine), cache / "reference.npz", progress=progress
    )
    table_path = cache / f"{seen.patches.name}.npz"
    table = factor_table(seen.store, seen.patches, seen.predictions.index, reference, table_path, progress=progress)
    stored(reference, cache / "reference.npz")
    write_table(table, table_path)
    return {factor.name: table.column(factor.name).astype(np.float64) for factor in FACTORS}


def _columns(
    numbers: dict[str, NDArray[np.float64]], named: dict[str, NDArray[np.str_]], index: NDArray[np.int64]
) -> tuple[dict[str, Column], list[str]]:
    """Factors and columns by name, and the columns that cannot be cut by: too many texts."""
    columns = {name: Column(name, values) for name, values in numbers.items()}
    left_out = []
    for name, values in named.items():
        unique = f"{name} (column)" if name in columns else name
        column = column_of(unique, values[index])
        if column is None:
            left_out.append(name)
        else:
            columns[unique] = column
    return columns, left_out


def _numbers(
    seen: _Seen, columns: dict[str, Column], cutting: Settings, groups: NDArray[np.str_] | None, bound: float
) -> dict[str, Any]:
    from .. import bootstrap
    from .trees import halves

    found = seen.predictions
    whole = metrics.score_with_intervals(
        found.label,
        found.probability,
        threshold=cutting.threshold,
        groups=groups,
        replicates=cutting.replicates,
        seed=cutting.seed,
    )
    rows, every, family = look(found, columns, cutting, groups)
    units = bootstrap.number_units(groups, len(found.label))
    mixes = silent(
        columns,
        found.label,
        found.probability,
        threshold=cutting.threshold,
        second=halves(units, cutting.seed),
        units=units,
        accuracy=whole["accuracy"],
        least=cutting.least,
        bound=bound,
        replicates=cutting.replicates,
        seed=cutting.seed,
    )
    missed = unseen(every, found.label, found.probability >= cutting.threshold, whole["accuracy"])
    return {
        "split": seen.patches.name,
        "n": len(found.label),
        "positive": int(found.label.sum()),
        "threshold": cutting.threshold,
        "store": str(seen.store.path),
        "store_sha256": seen.store.content_sha256,
        "predictions_sha256": seen.digest,
        "whole": {name: interval.as_json() for name, interval in whole.items()},
        "family": family,
        "slices": rows,
        "flagged": {name: sum(name in row["flagged"] for row in rows) for name in TESTED},
        "mixes": mixes,
        "unseen": missed[:20],
    }


def _saliency(
    model: TrainedModel | None,
    drawn: list[Gallery],
    seen: _Seen,
    config: Config,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any] | None]:
    """({gallery: maps}, the centre's share of them and of a sample of each class); nothing without a model."""
    if model is None:
        return {}, None
    if model.weights_sha256 != seen.evaluation["weights_sha256"]:
        raise DataError("the run's best checkpoint is not what made these predictions", next="evaluate it again")
    maps, told = {}, {}
    for one in drawn:
        maps[one.name] = occlusion(model, one.images, progress=progress)
        shares = centre_share(maps[one.name])
        for row, share in zip(one.rows, shares.tolist(), strict=True):
            row["centre_share"] = share
        told[one.name] = _told(shares)
    found = seen.predictions
    for label, name in enumerate(("normal", "tumour")):
        rows = np.flatnonzero(found.label == label)
        order = rng.permutation(rng.key(config.seed, "slices", "saliency", label), len(rows))
        chosen = found.index[rows[order[:_SAMPLED]]]
        images = np.asarray(seen.patches.images[np.sort(chosen)])
        told[name] = _told(centre_share(occlusion(model, images, progress=progress)))
    return maps, {"method": "occlusion, cells of 16 px", "chance": CHANCE, "centre_share": told}


def _told(shares: NDArray[np.float64]) -> dict[str, Any]:
    """Mean share with a 95 % t interval over patches."""
    from ..bootstrap import t_quantile

    kept = shares[np.isfinite(shares)]
    n = len(kept)
    if n < 2:
        why = "no saliency anywhere" if n == 0 else "one patch only"
        return {"n": n, "value": float(kept.mean()) if n else None, "low": None, "high": None, "why": why}
    reach = t_quantile(0.975, n - 1) * float(kept.std(ddof=1)) / n**0.5
    mean = float(kept.mean())
    return {"n": n, "value": mean, "low": max(0.0, mean - reach), "high": min(1.0, mean + reach)}


def _write(place: Path, result: dict[str, Any], drawn: list[Gallery], maps: dict[str, NDArray[np.float64]]) -> None:
    from ..drawing import png
    from . import figures

    with locked(place):
        for name, draw in figures.of_result(result, drawn, maps).items():
            write_bytes(place / "figures" / f"{name}.png", png(draw))
        kept = as_npz(drawn, maps)
        write_bytes(place / "galleries.npz", kept)
        result["galleries_sha256"] = hashlib.sha256(kept).hexdigest()
        result["slices_sha256"] = digest_of(result, "slices_sha256")
        write_json(place / "slices.json", result)
