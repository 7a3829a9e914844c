"""The page at a glance: the few facts that nobody may overlook, each leading to its chapter."""

from .evidence import Evidence
from .evidence.runs import RunEvidence
from .language import Language

__all__ = ["glance"]


def glance(found: Evidence, w: Language) -> list[tuple[str, str, str, bool]]:
    """[(label, value, chapter id, whether it is alarming)...]."""
    rows: list[tuple[str, str, str, bool]] = []
    if found.problems:
        rows.append((w.say("glance.problems"), w.count(len(found.problems)), "c1", True))
    rows += [_twins(found, w), _audit(found, w)]
    rows += _champions(found, w) if found.champions else _best(found.runs, w)
    return [*rows, _ledger(found, w)]


def _champions(found: Evidence, w: Language) -> list[tuple[str, str, str, bool]]:
    """Each champion's AUC on valid, over new seeds, and its primary score on test if that was opened."""
    rows = []
    for number, champion in enumerate(found.champions, start=1):
        place, primary = f"c5-c{number}", champion.content["primary"]
        spread = champion.content["seeds"]["scores"]["auc"]
        value = f"{w.number(spread['mean'])} ± {w.number(spread['sd'])}"
        rows.append((w.say("glance.champion", n=w.count(spread["n"])), value, place, False))
        if champion.test is not None:
            score = champion.test["metrics"].get(primary) or champion.test["metrics"]["auc"]
            rows.append((w.say("glance.test", score=primary.upper()), w.with_interval(score), f"{place}-test", False))
    return rows


def _twins(found: Evidence, w: Language) -> tuple[str, str, str, bool]:
    compared = [twin.found["identical"] for twin in found.twins if twin.found is not None]
    if not compared:
        return w.say("glance.twins"), w.say("not_measured"), "c1", False
    same = all(compared)
    return w.say("glance.twins"), w.say("glance.identical" if same else "glance.different"), "c1", not same


def _audit(found: Evidence, w: Language) -> tuple[str, str, str, bool]:
    if not found.audits:
        return w.say("glance.audit"), w.say("not_measured"), "c2", False
    errors = sum(audit.severities["error"] for audit in found.audits)
    return w.say("glance.audit"), w.count(errors), "c2", errors > 0


def _best(runs: list[RunEvidence], w: Language) -> list[tuple[str, str, str, bool]]:
    """The highest valid AUC among the finished runs, and how many runs it is the highest of."""
    scored = [(run.summary["best"]["intervals"]["auc"], run) for run in runs if run.summary is not None]
    scored = [(auc, run) for auc, run in scored if auc["value"] is not None]
    if not scored:
        return [(w.say("glance.auc"), w.say("not_measured"), "c5", False)]
    auc, run = max(scored, key=lambda pair: pair[0]["value"])
    label = w.say("glance.auc") if len(scored) == 1 else w.say("glance.auc_of", n=w.count(len(scored)))
    chance = auc["low"] is not None and auc["low"] <= 0.5 <= auc["high"]
    return [(label, w.with_interval(auc), f"c5-{run.id}", chance)]


def _ledger(found: Evidence, w: Language) -> tuple[str, str, str, bool]:
    here = [store for store in found.stores if store.manifest is not None]
    if not here:
        return w.say("glance.opened"), w.say("not_measured"), "c5-ledger", False
    broken = any(store.problems for store in here)
    times = w.count(sum(len(store.openings) for store in here))
    return w.say("glance.opened"), w.say("ledger.broken") if broken else times, "c5-ledger", broken
