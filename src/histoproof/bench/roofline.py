"""Which ceiling binds a row of a model: arithmetic, memory, or reading (Williams, Waterman & Patterson, Roofline, CACM 2009)."""

from typing import Any

from .rounds import Outcome
from .rows import nearest, rate_ratio

__all__ = ["infer_ceiling", "training_ceiling"]

_LINEAR = 0.5
"""Share of a model's arithmetic in linear layers from which its ceiling is that of matrix products of its shape."""
_CACHED = 32 << 20
"""Weights, gradients and moments up to so many bytes may stay in a cache, and are held against the copy that may."""


def training_ceiling(outcome: Outcome, ceilings: dict[str, Any]) -> dict[str, Any] | None:
    """For an MLP the lowest of what matrix products, memory and reading allow; for others their own arithmetic's rate."""
    facts = outcome.case.facts
    # forward reads the weights, backward writes gradients; the optimizer reads both and reads and writes weights and moments
    traffic = 4 * facts.get("parameters", 0) * (5 + 2 * facts.get("moments", 1))
    return _ceiling(outcome, ceilings, traffic)


def infer_ceiling(outcome: Outcome, ceilings: dict[str, Any]) -> dict[str, Any] | None:
    """The same for inference, which reads the weights once a batch."""
    return _ceiling(outcome, ceilings, 4 * outcome.case.facts.get("parameters", 0))


def _ceiling(outcome: Outcome, ceilings: dict[str, Any], traffic: int) -> dict[str, Any] | None:
    case, end = outcome.case, outcome.estimate("end_to_end")
    if end is None:
        return None
    device, batch, precision = case.device.type, case.name["batch_size"], case.name["precision"]
    linear = case.facts["linear"] >= _LINEAR
    shaped, square = f"gemm_mlp_b{batch}_{precision}_{device}", f"gemm_{precision}_{device}"
    product = shaped if linear and shaped in ceilings else square
    cached = 4 * case.facts["parameters"] * (2 + case.facts.get("moments", 0)) <= _CACHED
    copy = max(("memory_copy", "cache_copy")[: 1 + cached], key=lambda name: _rate(ceilings, f"{name}_{device}") or 0)
    bandwidth = _rate(ceilings, f"{copy}_{device}")
    bounds: dict[str, float | None] = {
        product: _over(_rate(ceilings, product), case.facts["flops"]),
        f"{copy}_{device}": _over(bandwidth, traffic / batch),
        "gather_convert_cpu": _rate(ceilings, "gather_convert_cpu") if device == "cpu" else None,
    }
    compute = outcome.estimate("compute")
    if linear or compute is None:
        return nearest(end, bounds)
    found = nearest(end, {"compute_only": compute.median})
    assert found is not None
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    paired = rate_ratio(end.samples, compute.samples)  # of the same turns
    if paired is not None:
        found |= {"fraction": paired["median"], "low": paired["low"], "high": paired["high"]}
    return {**found, "bounds": {**found["bounds"], **known}, "of_gemm": _of(end.median, known.get(product))}


def _rate(ceilings: dict[str, Any], name: str) -> float | None:
    return float(ceilings[name]["median"]) if name in ceilings else None


def _over(rate: float | None, work: float) -> float | None:
    return rate / work if rate and work else None


def _of(rate: float, bound: float | None) -> float | None:
    return rate / bound if bound else None
