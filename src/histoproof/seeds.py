"""One config, several seeds, trained in turn: a run folder each, and how much the seed moves the scores."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .config import Config, identity, load
from .data.store import open_store
from .errors import ConfigError, RunError
from .runs import free_name, open_run
from .runs.seeds import scores_of
from .train import resume, train

__all__ = ["train_seeds"]


def train_seeds(
    config: Path,
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    within: Path | None = None,
    progress: Callable[..., None] | None = None,
    watch: Callable[[Path], AbstractContextManager[None]] | None = None,
) -> dict[str, Any]:
    """Train `config` once for each seed, into OUT-seedN (WITHIN/seedN with `within`; runs/NAME-seedN-001, ... without either).

    Given again with the same place, a finished seed is skipped and an unfinished one goes on. Returns {"status", "runs": [what
    `train` returns, with "seed" and "was": "trained|resumed|skipped"...], "seeds", "primary", "scores": {"auc": see
    `runs.seeds.spread`, PRIMARY: the same}}. When a signal asked to stop, "status" is "stopped", with "signal", "run", "epochs"
    and "steps", and the scores are over the seeds that are finished. Raises what `train` raises, ConfigError for a seed given
    twice, and RunError where OUT-seedN is a run of something else, before anything is trained.
    """
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ConfigError(f"seeds {','.join(map(str, seeds))}", valid="whole numbers >= 0, each once, e.g. 42,43,44")
    resolved = {seed: load(config, [*overrides, f"seed={seed}"]) for seed in seeds}
    places = {seed: _place(seed, out, within) for seed in seeds}
    there = {seed: _was_begun(place, resolved[seed]) for seed, place in places.items()}
    done: list[dict[str, Any]] = []
    for seed in seeds:
        place = places[seed] or free_name(Path("runs"), f"{config.stem}-seed{seed}")
        if there[seed]:
            was = "skipped" if open_run(place).finished else "resumed"
            result = resume(place, progress=progress, watch=watch)
        else:
            was = "trained"
            result = train(config, [*overrides, f"seed={seed}"], out=place, progress=progress, watch=watch)
        done.append({"seed": seed, "was": was, **result})
        if result["status"] == "stopped":
            break
    finished = [row for row in done if row["status"] == "finished"]
    primary = resolved[seeds[0]].evaluate.primary
    last = {key: done[-1][key] for key in ("signal", "run", "epochs", "steps") if done[-1]["status"] == "stopped"}
    return {
        "status": done[-1]["status"],
        **last,
        "runs": done,
        "seeds": [row["seed"] for row in finished],
        "primary": primary,
        "scores": scores_of([row["best"]["valid"] for row in finished], primary),
    }


def _place(seed: int, out: Path | None, within: Path | None) -> Path | None:
    if within is not None:
        return within / f"seed{seed}"
    return None if out is None else out.with_name(f"{out.name}-seed{seed}")


def _was_begun(place: Path | None, config: Config) -> bool:
    """Whether a seed's run folder holds this very training already. Raises RunError if it holds another."""
    if place is None or not (place / "config.yaml").is_file():
        return False
    run = open_run(place)
    differs = identity(run.load_config()) != identity(config)
    if not differs and run.finished:
        differs = run.load_summary()["store_sha256"] != open_store(Path(config.data.store)).content_sha256
    if differs:
        raise RunError(
            f"{place} is a run of another config or other patches: it cannot stand for this seed",
            next=f"see the difference between its config.yaml and yours, or give another --out than {place}",
        )
    return True
