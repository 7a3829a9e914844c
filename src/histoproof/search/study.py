"""The study folder: what it is of, said once by the first process; whoever joins must mean the same study."""

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import Config, identity, load
from ..data.partition import Part
from ..errors import OutputError, RunError, writing
from ..experiment import Setup
from ..files import canonical, is_leftover, read_json, write_bytes, write_json, write_text
from ..provenance import now
from ..runs import locked
from .spec import SpaceSpec, minimised
from .storage import STUDY_NAME, mend, open_storage

__all__ = ["Study", "enter", "facts_of"]

_OURS = {".lock", ".journal.log.lock", "journal.log", "config.yaml", "space.yaml", "workers"}
"""What a first process that was killed may have left before study.json."""
_SAME = ("base", "space", "sampler", "pruner", "metric", "direction", "seed", "store_sha256", "partition_sha256")
"""What those who join must agree in."""


@dataclass(frozen=True)
class Study:
    """The paths of a study."""

    path: Path

    @property
    def facts(self) -> Path:
        """What the study is of, JSON."""
        return self.path / "study.json"

    @property
    def config(self) -> Path:
        """The resolved base config, YAML."""
        return self.path / "config.yaml"

    @property
    def space(self) -> Path:
        """The space as it was given, YAML."""
        return self.path / "space.yaml"

    @property
    def journal(self) -> Path:
        """Optuna's journal."""
        return self.path / "journal.log"

    @property
    def result(self) -> Path:
        """Rows of all trials and the best, JSON."""
        return self.path / "search.json"

    @property
    def figures(self) -> Path:
        """Folder of figures."""
        return self.path / "figures"

    @property
    def workers(self) -> Path:
        """Folder of the workers' locks."""
        return self.path / "workers"

    def trial(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.path / "trials" / f"{number:04d}"

    def lock(self) -> AbstractContextManager[None]:
        """The study's lock: whoever holds it may ask, tell and rename. It is held for moments only."""
        return locked(self.path, wait_s=120)


def facts_of(setup: Setup, spec: SpaceSpec) -> dict[str, Any]:
    """What a study is of, from its base experiment and its space."""
    base = _without(identity(setup.config), list(spec.space))
    return {
        "format": 1,
        "base": base,
        "base_sha256": hashlib.sha256(canonical(base).encode()).hexdigest(),
        "space": {key: d.model_dump(mode="json", by_alias=True) for key, d in spec.space.items()},
        "sampler": spec.sampler.model_dump(mode="json"),
        "pruner": spec.pruner.model_dump(mode="json"),
        "metric": spec.metric,
        "direction": "minimize" if minimised(spec.metric) else "maximize",
        "seed": spec.seed,
        "store_sha256": setup.store.content_sha256,
        "partition_sha256": setup.valid.sha256 if isinstance(setup.valid, Part) else None,
    }


def _without(content: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Nested sections without the keys that are searched."""
    for key in keys:
        *sections, last = key.split(".")
        inner: Any = content
        for section in sections:
            inner = inner.get(section, {}) if isinstance(inner, dict) else {}
        inner.pop(last, None)
    return content


def enter(out: Path, config: Config, space: Path, facts: dict[str, Any]) -> tuple[Study, int]:
    """Make a study, or join it; also how many bytes of its journal had to be cut.

    Raises OutputError if `out` holds something else, RunError naming each difference if it is another study.
    """
    study = Study(out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with study.lock():
        if study.facts.is_file():
            _check_same(study, facts)
            if _without(identity(load(study.config)), list(facts["space"])) != facts["base"]:
                raise RunError(f"{study.config} was changed since the study began", next="change it back")
            if not study.journal.is_file():
                raise RunError(
                    f"{study.journal} is missing: which trials there were is unknown",
                    next="restore it, or give another --out; the runs in trials/ are whole without it",
                )
            return study, mend(study.journal)
        if foreign := sorted(path.name for path in out.iterdir() if not _is_ours(path)):
            raise OutputError(
                f"{out} is no study and not empty: it holds {foreign[0]}", next="give a new folder with --out"
            )
        _make(study, config, space, facts)
    return study, 0


def _is_ours(path: Path) -> bool:
    """Whether a first process that was killed before it wrote study.json may have left this."""
    if path.name == "trials":
        return path.is_dir() and not any(path.iterdir())
    return path.name in _OURS or is_leftover(path)


def _make(study: Study, config: Config, space: Path, facts: dict[str, Any]) -> None:
    import optuna

    with writing(study.path):
        study.journal.unlink(missing_ok=True)
        study.workers.mkdir(exist_ok=True)
        (study.path / "trials").mkdir(exist_ok=True)
    write_text(study.config, config.as_yaml())
    write_bytes(study.space, space.read_bytes())
    storage = open_storage(study.journal)
    with writing(study.journal):
        optuna.create_study(study_name=STUDY_NAME, storage=storage, direction=facts["direction"])
    write_json(study.facts, {**facts, "histoproof": __version__, "created": now()})


def _check_same(study: Study, facts: dict[str, Any]) -> None:
    there = read_json(study.facts)
    if not isinstance(there, dict) or there.get("format") != facts["format"]:
        raise RunError(f"{study.facts} is no study of this version", next="give a new folder with --out")
    differing = [line for key in _SAME for line in _differences(key, there.get(key), facts[key])]
    if differing:
        more = f" (and {len(differing) - 5} more)" if len(differing) > 5 else ""
        raise RunError(
            f"{study.path} is another study: " + "; ".join(differing[:5]) + more,
            valid="the config, space and store it was begun with; --trials may change",
            next="give another --out, or change that back",
        )


def _differences(key: str, there: Any, here: Any) -> list[str]:
    """Where two values differ, key by key."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(name for name in here if name not in there)]
        return [line for name in keys for line in _differences(f"{key}.{name}", there.get(name), here.get(name))]
    name = key.removeprefix("base.")
    return [] if there == here else [f"{name} is {_text(there)} there, {_text(here)} here"]


def _text(value: Any) -> str:
    return "absent" if value is None else canonical(value)
