"""Spikes of the gradient norm are found robustly, traced to their patches, and held against chance."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoproof import spikes as module
from histoproof.data.pack import pack
from histoproof.data.store import open_store
from histoproof.errors import RunError
from histoproof.spikes import enrichment, find_spikes, spikes
from histoproof.train import train

CONFIG = """
data: {store: STORE, quarantine: include}
model: {name: mlp, hidden: [16], dropout: 0.0}
optim: {lr: 0.001}
train: {epochs: 4, batch_size: 8}
evaluate: {bootstrap: 100}
"""


def norms(seed: int, n: int = 400) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A run as runs are: log-normal around a level that falls."""
    generator = np.random.Generator(np.random.Philox(seed))
    return np.exp(0.2 * generator.standard_normal(n)) * np.linspace(5, 0.5, n)


def test_planted_spikes_are_found_and_next_to_nothing_else() -> None:
    planted, others = [3, 90, 91, 250, 399], 0
    for seed in range(20):
        values = norms(seed)
        values[planted] *= 8
        steps, scores = find_spikes(values)
        assert set(planted) <= set(steps.tolist())
        assert (scores >= 3.5).all()
        others += len(steps) - len(planted)
    assert others <= 12  # of 7,900 ordinary steps


def test_an_ordinary_run_has_next_to_none() -> None:
    # One normal value in 4,300 lies 3.5 deviations above its mean: about 5 of the 20,000 looked at.
    assert sum(len(find_spikes(norms(seed))[0]) for seed in range(50)) <= 20


@given(st.floats(1e-6, 1e6))
@settings(max_examples=25)
def test_the_unit_of_the_norm_does_not_matter(factor: float) -> None:
    values = norms(1)
    values[100] *= 10
    assert find_spikes(values * factor)[0].tolist() == find_spikes(values)[0].tolist()


def test_a_norm_that_is_not_finite_is_a_spike() -> None:
    values = norms(2)
    values[7] = np.nan
    steps, scores = find_spikes(values)
    assert steps.tolist() == [7]
    assert np.isinf(scores[0])


def test_short_constant_and_empty_runs_do_not_break() -> None:
    assert find_spikes(np.array([]))[0].tolist() == []
    assert find_spikes(np.ones(5))[0].tolist() == []
    assert find_spikes(np.array([2.0]))[0].tolist() == []


def test_enrichment_is_seen_where_it_is_and_not_where_it_is_not() -> None:
    faulty = np.zeros(300, dtype=np.int64)
    faulty[::10] = 1
    found = enrichment(faulty, np.array([0, 10, 20, 30], dtype=np.int64), 1)
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.per_spike == 1.0
    assert found.per_other == pytest.approx(26 / 296)
    none = enrichment(faulty, np.array([1, 11, 21, 31], dtype=np.int64), 1)
    assert none.p_value == 1.0


def test_p_values_are_uniform_under_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERMUTATIONS", 200)
    generator = np.random.Generator(np.random.Philox(1))
    faulty = generator.poisson(3, 200)
    p = [enrichment(faulty, generator.choice(200, 12, replace=False), seed).p_value or 0 for seed in range(150)]
    assert 0.02 <= np.mean(np.array(p) <= 0.1) <= 0.2


def test_without_spikes_or_faults_it_says_so() -> None:
    faulty = np.zeros(10, dtype=np.int64)
    assert enrichment(faulty, np.array([], dtype=np.int64), 1).why == "no spikes"
    assert enrichment(faulty, np.array([1], dtype=np.int64), 1).why == "no patch with a finding was trained on"


@pytest.fixture
def poisoned(tmp_path: Path, store: Path, write_split: Callable[..., None]) -> Path:
    """A run trained on 4 patches of 1e5 (white, once in a store), among 256, with the quarantine switched off."""
    opened = open_store(store)
    train_x = np.array(opened.split("train").images, dtype=np.float32)
    train_x[[5, 60, 130, 200]] = 1e5
    write_split(tmp_path / "d", "train", train_x, opened.split("train").labels)
    write_split(tmp_path / "d", "valid", np.array(opened.split("valid").images), opened.split("valid").labels)
    pack(tmp_path / "d", tmp_path / "s")
    (tmp_path / "c.yaml").write_text(CONFIG.replace("STORE", str(tmp_path / "s")))
    train(tmp_path / "c.yaml", out=tmp_path / "run")
    return tmp_path / "run"


def test_a_spike_is_traced_to_its_patches_and_their_findings(poisoned: Path) -> None:
    result = spikes(poisoned)
    assert result["steps"] == 128
    for spike in result["spikes"]:
        assert len(spike["indices"]) == 8
        assert set(spike["faulty"]) <= {5, 60, 130, 200}
        assert all(kinds == ["out_of_range"] for kinds in spike["faulty"].values())
    assert set(result["enrichment"]) == {"per_spike", "per_other", "p_value", "why"}


def test_another_store_is_noticed(poisoned: Path, store: Path) -> None:
    text = (poisoned / "config.yaml").read_text()
    (poisoned / "config.yaml").write_text(text.replace("seed: 42", "seed: 43"))
    with pytest.raises(RunError, match="step 0 saw other patches"):
        spikes(poisoned)
