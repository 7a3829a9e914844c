"""Everything that the journal's PATHs hold, read once. Absent evidence is absent: the page then says what to run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...errors import RunError
from ...runs import Run
from ...runs.listing import run_folders
from .audit import AuditEvidence, is_audit, read_audit
from .benches import BenchEvidence, is_bench, read_bench
from .champions import ChampionEvidence, is_champion, read_champion
from .dose import DoseEvidence, is_dose, read_dose
from .repository import RepositoryEvidence, is_repository, read_repository
from .runs import RunEvidence, read_run
from .slices import DriftEvidence, SlicesEvidence, is_drift, is_slices, read_drift, read_slices
from .stores import StoreEvidence, is_store, read_store
from .studies import StudyEvidence, is_study, read_study
from .twins import TwinEvidence, read_twins

__all__ = ["Evidence", "read_evidence"]


@dataclass(frozen=True)
class Evidence:
    """What was found, each kind in the order it was given."""

    runs: list[RunEvidence] = field(default_factory=list)
    audits: list[AuditEvidence] = field(default_factory=list)
    doses: list[DoseEvidence] = field(default_factory=list)
    stores: list[StoreEvidence] = field(default_factory=list)
    """Those given, then those of the runs."""
    studies: list[StudyEvidence] = field(default_factory=list)
    champions: list[ChampionEvidence] = field(default_factory=list)
    slices: list[SlicesEvidence] = field(default_factory=list)
    drifts: list[DriftEvidence] = field(default_factory=list)
    benches: list[BenchEvidence] = field(default_factory=list)
    repositories: list[RepositoryEvidence] = field(default_factory=list)
    twins: list[TwinEvidence] = field(default_factory=list)
    """Found among the runs."""

    @property
    def problems(self) -> list[str]:
        """Where evidence contradicts itself, all of it."""
        return [problem for found in self._all() for problem in found.problems]

    @property
    def files(self) -> list[Path]:
        """Every file that was read, each once."""
        return list(dict.fromkeys(path for found in self._all() for path in found.files))

    def _all(self) -> Iterator[Any]:
        for kind in fields(self):
            yield from getattr(self, kind.name)

    def same_as(self, run: RunEvidence) -> RunEvidence | None:
        """The earlier run that `run` is identical to, bit for bit, and evaluated on the same splits; None where there is none."""
        for twin in self.twins:
            if twin.b == run.path and twin.found is not None and twin.found["identical"]:
                other = next(r for r in self.runs if r.path == twin.a)
                if set(run.evaluations) <= set(other.evaluations) and not run.problems:
                    return other
        return None


def read_evidence(paths: Sequence[Path]) -> Evidence:
    """Read run folders, folders with runs in them, stores, audits, studies and git repositories.

    A search brings the champion that lies in it, a champion the run that was frozen, a run the slices that lie in it; what is
    given twice is read once. Raises RunError for a path that is none of these, DataError for damaged evidence.
    """
    found = Evidence()
    stores: dict[Path, Path] = {}
    runs: list[Path] = []
    for path in {path.resolve(): path for path in paths}.values():
        kind = next((kind for kind in _KINDS if kind[0](path)), None)
        if kind is not None:
            getattr(found, kind[1]).append(kind[2](path))
        elif (path / "config.yaml").is_file():
            runs.append(path)
        elif is_store(path):
            stores.setdefault(path.absolute(), path)
        else:
            runs += _inside(path)
    given = {one.resolve() for one in [*(c.path for c in found.champions), *(s.path for s in found.slices)]}
    inner = [study.path / "champion" for study in found.studies]
    found.champions.extend(read_champion(path) for path in inner if is_champion(path) and path.resolve() not in given)
    frozen = [champion.run for champion in found.champions if (champion.run / "config.yaml").is_file()]
    runs = list({run.resolve(): run for run in [*runs, *frozen]}.values())
    found.runs.extend(read_run(run, f"r{n}", _name(run, runs)) for n, run in enumerate(runs, start=1))
    beside = [run.path / "slices" for run in found.runs]
    found.slices.extend(read_slices(path) for path in beside if is_slices(path) and path.resolve() not in given)
    used = [*(run.store for run in found.runs), *(champion.store for champion in found.champions)]
    for path in used:
        stores.setdefault(path.absolute(), path)
    places = [*(run.path for run in found.runs), *(champion.path for champion in found.champions)]
    looks = [Run(place).evaluation("test") for place in places]
    found.stores.extend(read_store(path, looks) for path in stores.values())
    found.twins.extend(read_twins(found.runs))
    return found


_KINDS: tuple[tuple[Callable[[Path], bool], str, Callable[[Path], Any]], ...] = (
    (is_study, "studies", read_study),
    (is_champion, "champions", read_champion),
    (is_audit, "audits", read_audit),
    (is_dose, "doses", read_dose),
    (is_slices, "slices", read_slices),
    (is_drift, "drifts", read_drift),
    (is_bench, "benches", read_bench),
    (is_repository, "repositories", read_repository),
)
"""(whether a folder is one, the attribute of Evidence, how it is read), in the order in which they are asked."""


def _name(run: Path, runs: Sequence[Path]) -> str:
    """The folder's name, with its parent's where several runs are called so."""
    alike = sum(other.absolute().name == run.absolute().name for other in runs)
    return run.absolute().name if alike < 2 else "/".join(run.absolute().parts[-2:])


def _inside(path: Path) -> list[Path]:
    """The runs in a folder."""
    if not path.is_dir():
        raise RunError(
            f"no such run: {path}",
            next="list yours with `histoproof runs`, or train one with `histoproof train CONFIG`",
        )
    inside = list(run_folders(path))
    if not inside:
        raise RunError(
            f"{path} holds nothing that a journal can be made of",
            valid="folders of runs, `data audit --out`, `dose`, `bench`; stores; a git repository",
        )
    return inside
