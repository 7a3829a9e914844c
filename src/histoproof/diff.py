"""Two runs compared: what was different before they began, the first step at which they part, and what that means in words."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .config import identity
from .errors import RunError
from .files import read_json, read_lines
from .runs import Run, open_run, trail_end

__all__ = ["Difference", "diff"]

What = Literal["config", "data", "indices", "weights", "loss", "gradient"]
_ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """Something that was not the same before the first step. `weight` ranks what can explain a parting; 0: it cannot."""

    kind: Literal["config", "data", "software", "hardware", "setting"]
    key: str
    a: Any
    b: Any
    weight: int
    explains: str


def diff(run_a: Path, run_b: Path) -> dict[str, Any]:
    """Compare two run folders, also from two machines; neither needs to be finished.

    Returns {"identical", "first_divergence": null | {"step", "what", "a", "b"}, "differences": [...], "steps": {"a", "b"},
    "words": [...]}. `identical`: the same trail to its end and the same last weights. Raises RunError for a folder that is no
    run, or whose trail was changed.
    """
    a, b = open_run(run_a), open_run(run_b)
    for run in (a, b):
        trail_end(run.trail)
        if not read_lines(run.trail):
            raise RunError(f"{run.trail} is missing or empty", next="the run is damaged: train it again")
    lines_a, lines_b = read_lines(a.trail), read_lines(b.trail)
    parting = _parting(lines_a, lines_b)
    last = max(len(lines_a), len(lines_b)) if parting is None else parting["step"]
    found = sorted(_differences(a, b, last), key=lambda d: -d.weight)
    if (
        parting is None and lines_a[:1] != lines_b[:1]
    ):  # an input that no step shows, such as how the best epoch is chosen
        parting = {"step": 0, "what": "config", "a": None, "b": None, "seen": "inputs"}
    if parting is not None:
        parting = _named(parting, found)
    steps = {"a": max(len(lines_a) - 1, 0), "b": max(len(lines_b) - 1, 0)}
    identical = parting is None and trail_end(a.trail) == trail_end(b.trail) and _weights(a) == _weights(b)
    return {
        "a": str(run_a),
        "b": str(run_b),
        "identical": identical,
        "first_divergence": parting,
        "differences": [asdict(d) for d in found],
        "steps": steps,
        "words": _words(identical, parting, found, steps),
    }


def _differences(a: Run, b: Run, last: int) -> list[Difference]:
    """What was not the same; a change of environment after step `last` explains nothing and is left out."""
    config_a, config_b = a.load_config(), b.load_config()
    inputs = _unequal(_flat(identity(config_a)), _flat(identity(config_b)))
    found = [Difference("config", key, x, y, 100, "another experiment") for key, x, y in inputs]
    named = {d.key for d in found}
    whole = _unequal(_flat(config_a.as_dict()), _flat(config_b.as_dict()))
    threads_matter = config_a.train.shards == 1 or config_b.train.shards == 1
    for key, x, y in whole:
        if key not in named:
            if key == "train.workers" and threads_matter:
                found.append(Difference("config", key, x, y, 60, "with shards: 1 the number of threads changes sums"))
            else:
                found.append(
                    Difference("config", key, x, y, 0, "how the work is done or told; no weight depends on it")
                )
    found += _data_differences(a, b)
    return found + _over_time(a, b, last, threads_matter)


def _over_time(a: Run, b: Run, last: int, threads_matter: bool) -> list[Difference]:
    """Differences of the environments that were in force at the same step: a run may go on elsewhere."""
    places = [run.environments() for run in (a, b)]
    found: dict[tuple[str, str, str], Difference] = {}
    for start in sorted({step for place in places for step, _ in place if step <= last}):
        in_force = [[described for step, described in place if step <= start][-1] for place in places]
        for d in _environment_differences(in_force[0], in_force[1], threads_matter):
            key = d.key if start == 0 else f"{d.key} (from step {start} on)"
            found.setdefault((d.key, str(d.a), str(d.b)), replace(d, key=key))
    return list(found.values())


def _data_differences(a: Run, b: Run) -> list[Difference]:
    heads = [(read_lines(run.trail) or [{}])[0] for run in (a, b)]
    x, y = (head.get("data", _ABSENT) for head in heads)
    if x == y:
        return []
    return [Difference("data", "pixels, labels or rows in use", x, y, 90, "other patches, or other labels")]


def _environment_differences(a: dict[str, Any], b: dict[str, Any], threads_matter: bool) -> list[Difference]:
    unequal = _unequal(_flat(_with_absent_packages(a)), _flat(_with_absent_packages(b)))
    versions = {key for key, _, _ in unequal if key.endswith(".version")}
    found = []
    for key, x, y in unequal:
        if key.endswith(".record_sha256") and key.replace(".record_sha256", ".version") in versions:
            continue  # another version has other files; one line says it
        for prefix, kind, weight, why in _EXPLAINS:
            if key.startswith(prefix):
                if key.startswith("threads.") and not threads_matter:
                    weight, why = 0, "shards > 1: the number of workers cannot change a bit"  # noqa: PLW2901
                if weight is not None:
                    found.append(Difference(kind, key, x, y, weight, why))
                break
    return found


def _with_absent_packages(environment: dict[str, Any]) -> dict[str, Any]:
    """The environment with a version for packages that were not installed: "absent"."""
    packages = environment.get("packages", {})
    return {**environment, "packages": {name: found or {"version": _ABSENT} for name, found in packages.items()}}


# The first prefix that fits decides; weight None: of no interest (times, job numbers, the command).
_EXPLAINS: tuple[tuple[str, Literal["software", "hardware", "setting"], int | None, str], ...] = (
    ("device", "hardware", 80, "other kernels"),
    ("packages.torch.", "software", 70, "other kernels, and possibly other initial weights"),
    ("gpu.", "hardware", 70, "other kernels"),
    ("cpu.capability", "hardware", 65, "other vector instructions, other order of sums"),
    ("threads.", "setting", 60, "with shards: 1 the number of threads changes the order of sums"),
    ("cpu.model", "hardware", 50, "the math library chooses its kernels by the processor"),
    ("flags.", "setting", 45, "torch was told otherwise"),
    ("variables.", "setting", 40, "the math libraries were told otherwise"),
    ("packages.numpy.", "software", 20, "scores and statistics are computed with it"),
    ("packages.monai.", "software", 20, "its architectures"),
    ("histoproof", "software", 55, "our own code"),
    ("git.commit", "software", 30, "other code in the repository"),
    ("packages.", "software", 5, "not part of a step"),
    ("python", "software", 5, "not part of a step"),
    ("platform", "hardware", 5, "not part of a step"),
    ("cpu.", "hardware", 0, "how many cores; with shards > 1 it cannot change a bit"),
    ("", "setting", None, ""),
)


def _parting(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first step whose lines differ, and the first quantity in the order of cause and effect."""
    for x, y in zip(a[1:], b[1:], strict=False):
        for key, what in _QUANTITIES.items():
            if x.get(key) != y.get(key):
                values = {"a": _readable(key, x.get(key)), "b": _readable(key, y.get(key))}
                return {"step": x["step"], "what": what, **values, "seen": what}
    return None


_QUANTITIES: dict[str, What] = {
    "indices": "indices",
    "weights": "weights",
    "loss": "loss",
    "gradient": "gradient",
    "grad_norm": "gradient",
    "lr": "config",
}


def _named(parting: dict[str, Any], found: list[Difference]) -> dict[str, Any]:
    """Name a parting by its cause where the inputs differ: config before data; else by what was seen."""
    for kind in ("config", "data"):
        causes = [d for d in found if d.kind == kind and d.weight >= 90]
        if causes:
            return {**parting, "what": kind, "a": {d.key: d.a for d in causes}, "b": {d.key: d.b for d in causes}}
    return parting


def _words(
    identical: bool, parting: dict[str, Any] | None, found: list[Difference], steps: dict[str, int]
) -> list[str]:
    causes = [d for d in found if d.weight > 0]
    if identical:
        words = [f"identical: the same {steps['a']} steps, the same weights"]
        if causes:
            words.append("although these differ: " + "; ".join(f"{d.key} {d.a} against {d.b}" for d in causes))
        return words
    if parting is None:
        return [
            f"the same as far as both go ({min(steps.values())} steps), but one goes on: {steps['a']} steps against {steps['b']}"
            if steps["a"] != steps["b"]
            else "the same steps, but not the same last weights: the checkpoint was changed, or one run is not finished"
        ]
    words = [f"they part at step {parting['step']}: {_MEANING[parting['seen']]}"]
    if parting["seen"] == "weights" and parting["step"] == 0:
        words = ["they part at step 0: they began with other weights (the seed, the model, or another torch)"]
    if causes:
        words += [f"can explain it: {d.key}, {d.a} against {d.b} ({d.explains})" for d in causes[:6]]
    else:
        words.append(
            "nothing that was written down explains it: look for a change of hardware, of the store, or of a checkpoint"
        )
    return words


_MEANING = {
    "inputs": "the steps are the same, but not what the runs began with",
    "indices": "other batches. The order of an epoch, the split or the labels are not the same",
    "weights": "same batches, but other weights before the step: the checkpoint it went on from was not the same",
    "loss": "same batches, same weights, other loss: the pixels, their augmentation, the dropout or the forward kernels differ",
    "gradient": "same batches, same loss, other gradients: the kernels of the backward pass differ, or the order of their sums",
    "config": "same batches, same gradients, another learning rate",
}


def _weights(run: Run) -> str | None:
    return str(read_json(run.summary)["weights_sha256"]) if run.finished else None


def _readable(key: str, value: Any) -> Any:
    return float.fromhex(value) if key in ("loss", "grad_norm", "lr") and value is not None else value


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _unequal(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    keys = list(dict.fromkeys([*a, *b]))
    return [
        (key, a.get(key, _ABSENT), b.get(key, _ABSENT)) for key in keys if a.get(key, _ABSENT) != b.get(key, _ABSENT)
    ]
