"""What makes one threshold better than another: the rules that `threshold` chooses by.

FBeta            the highest F-beta, (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP): recall counts b times precision
RecallAtLeast    recall at least r, then the highest specificity, or precision
ExpectedCost     the least cost_fn x missed tumour patches + cost_fp x false alarms per patch; with `prevalence`, that
                 of patients to come, for tumour patches as frequent as that instead of as in valid
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .bootstrap import Floats
from .errors import ConfigError

__all__ = ["ExpectedCost", "FBeta", "RecallAtLeast", "Rule", "check", "cost", "parse_rule", "worth"]

_TIE = 1e-12


@dataclass(frozen=True)
class FBeta:
    """The highest F-beta; beta > 0."""

    beta: float = 2.0

    def __str__(self) -> str:
        return f"the highest F{self.beta:g}"


@dataclass(frozen=True)
class RecallAtLeast:
    """Recall at least `recall`, in (0, 1], then the highest of `then`."""

    recall: float = 0.95
    then: Literal["specificity", "precision"] = "specificity"

    def __str__(self) -> str:
        return f"recall at least {self.recall:g}, then the highest {self.then}"


@dataclass(frozen=True)
class ExpectedCost:
    """The least expected cost of a patch; costs >= 0, not both 0; prevalence in (0, 1), by default that of the sample."""

    cost_fn: float
    cost_fp: float = 1.0
    prevalence: float | None = None

    def __str__(self) -> str:
        among = "" if self.prevalence is None else f", {self.prevalence:g} of patches tumour"
        return f"the least cost, {self.cost_fn:g} for a missed tumour patch, {self.cost_fp:g} for a false alarm{among}"


Rule = FBeta | RecallAtLeast | ExpectedCost
"""`str` of a rule says it in words."""


_VALID = "f2 (or f1, f0.5, ...), recall>=0.95 (or recall>=0.95,precision), cost=5:1 (or cost=5:1@0.1, at a prevalence of 0.1)"


def parse_rule(text: str) -> Rule:
    """A rule from the command line's short form. Raises ConfigError.

    fB: the highest F-beta. recall>=R[,specificity|,precision]: recall at least R, then the highest of the other.
    cost=FN:FP[@PREVALENCE]: the least cost, FN for a missed tumour patch, FP for a false alarm.
    """
    number = r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
    plain = text.replace(" ", "").lower()
    rule: Rule | None = None
    if found := re.fullmatch(rf"f{number}", plain):
        rule = FBeta(float(found[1]))
    elif found := re.fullmatch(rf"recall>=?{number}(?:,(specificity|precision))?", plain):
        rule = RecallAtLeast(float(found[1]), "precision" if found[2] == "precision" else "specificity")
    elif found := re.fullmatch(rf"cost={number}:{number}(?:@{number})?", plain):
        rule = ExpectedCost(float(found[1]), float(found[2]), None if found[3] is None else float(found[3]))
    if rule is None:
        raise ConfigError(f"{text!r} is no rule for a threshold", valid=_VALID)
    check(rule)
    return rule


def check(rule: Rule) -> None:
    """Raise ConfigError where a rule's numbers are out of range."""
    if isinstance(rule, FBeta) and not 0 < rule.beta < math.inf:
        raise ConfigError(f"beta is {rule.beta}", valid="a number above 0; 2 counts recall twice as much as precision")
    if isinstance(rule, RecallAtLeast) and not 0 < rule.recall <= 1:
        raise ConfigError(f"recall is {rule.recall}", valid="a number above 0, up to 1")
    if isinstance(rule, RecallAtLeast) and rule.then not in ("specificity", "precision"):
        raise ConfigError(f"then is {rule.then!r}", valid="specificity or precision")
    if isinstance(rule, ExpectedCost):
        costs = (rule.cost_fn, rule.cost_fp)
        if not all(0 <= c < math.inf for c in costs) or not any(costs):
            raise ConfigError(f"the costs are {costs[0]} and {costs[1]}", valid="numbers >= 0, not both 0")
        if rule.prevalence is not None and not 0 < rule.prevalence < 1:
            raise ConfigError(f"prevalence is {rule.prevalence}", valid="a number between 0 and 1")


def worth(rule: Rule, tp: Floats, fp: Floats) -> Floats:
    """What thresholds are worth, more being better: `tp` and `fp` (R, K), of which the last calls every patch.

    Every row has patches of both classes.
    """
    p, n = tp[:, -1:], fp[:, -1:]
    if isinstance(rule, FBeta):
        b = rule.beta**2
        return (1 + b) * tp / (b * p + tp + fp)
    if isinstance(rule, ExpectedCost):
        return -cost(rule, tp, fp, p, n)
    then = 1 - fp / n if rule.then == "specificity" else tp / np.maximum(tp + fp, 1)
    return np.where(tp >= rule.recall * p - _TIE * p, then, tp / p - 2)


def cost(rule: ExpectedCost, tp: Floats, fp: Floats, p: Floats, n: Floats) -> Floats:
    """The expected cost of a patch, from TP and FP among p tumour and n normal patches; any shape."""
    share = p / (p + n) if rule.prevalence is None else rule.prevalence
    return rule.cost_fn * share * (p - tp) / p + rule.cost_fp * (1 - share) * fp / n
