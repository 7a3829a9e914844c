"""A group's repository as git knows it: history, merges, authors, and which checks it keeps."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError

__all__ = ["RepositoryEvidence", "is_repository", "read_repository"]

_GRAPH = 24
_CHECKS = (".github/workflows", ".gitlab-ci.yml", ".ci", ".pre-commit-config.yaml", "Jenkinsfile")
# A repository from elsewhere may bring a config of its own: nothing in it may start a program. That is also why git is not asked
# whether the working tree is clean: that can run filters.
_SAFE = (
    *("-c", "core.fsmonitor=false", "-c", "log.showSignature=false", "-c", "core.hooksPath=/dev/null"),
    *("-c", "diff.external=", "-c", "core.pager=cat", "-c", "protocol.allow=never"),
)


@dataclass(frozen=True)
class RepositoryEvidence:
    """What `git log` says, at one commit."""

    path: Path
    head: str
    branch: str
    commits: int
    merges: int
    first: str
    """Date of the first commit, YYYY-MM-DD."""
    last: str
    authors: list[tuple[str, int, int]]
    """(name, commits, merges among them), most commits first."""
    graph: str
    """The last commits as git draws them."""
    tags: list[str]
    checks: list[str]
    """Files that say what is checked, as far as they are committed."""
    problems: list[str]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read; git's own are known by the commit's digest."""
        return ()


def is_repository(path: Path) -> bool:
    """Whether a folder is the top of a git repository."""
    return (path / ".git").exists()


def read_repository(path: Path) -> RepositoryEvidence:
    """Ask git. Raises DataError where git is missing, or the repository is empty or damaged."""
    log = [
        line.split("\t") for line in _git(path, "log", "--format=%H%x09%ad%x09%P%x09%aN", "--date=short").splitlines()
    ]
    names: dict[str, list[int]] = {}
    for _, _, parents, author in log:
        counts = names.setdefault(author, [0, 0])
        counts[0] += 1
        counts[1] += len(parents.split()) > 1
    tracked = _git(path, "ls-tree", "-r", "--name-only", "-z", "HEAD").split("\0")
    return RepositoryEvidence(
        path=path,
        head=log[0][0],
        branch=_git(path, "rev-parse", "--abbrev-ref", "HEAD").strip(),
        commits=len(log),
        merges=sum(len(parents.split()) > 1 for _, _, parents, _ in log),
        first=log[-1][1],
        last=log[0][1],
        authors=sorted(((name, *counts) for name, counts in names.items()), key=lambda a: (-a[1], a[0])),  # type: ignore[misc]
        graph=_git(
            path, "log", "--graph", "--format=%h %ad %aN: %s", "--date=short", f"-{_GRAPH}", "--color=never"
        ).rstrip(),
        tags=_git(path, "tag", "--merged", "HEAD").split(),
        checks=[name for name in tracked if any(name == c or name.startswith(f"{c}/") for c in _CHECKS)],
        problems=[],
    )


def _git(path: Path, *arguments: str) -> str:
    command = ["git", "-C", str(path), "--no-pager", "--no-optional-locks", *_SAFE, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        raise DataError("git is not installed: the history cannot be read", next="install git") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"git needs more than a minute for {path}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(
            f"git cannot read {path}: {said[-1] if said else 'no reason given'}", valid="a repository with commits"
        )
    return done.stdout.decode(errors="replace")
