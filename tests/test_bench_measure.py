"""The stopwatch: intervals that hold what they say, rows that fail alone, and what the machine did meanwhile."""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from histoproof import models, rng
from histoproof.bench import conditions, gpu, memory
from histoproof.bench.conditions import Conditions, Snapshot, between, busy_others, watched
from histoproof.bench.flops import count_flops
from histoproof.bench.measure import Effort, Estimate, Stage, calibrated, estimate, median_rank
from histoproof.bench.memory import PeakRam, guarded, out_of_memory
from histoproof.bench.rounds import CPU, Case, run_cases
from histoproof.bench.rows import bottleneck, nearest
from histoproof.config import CnnConfig, MlpConfig
from histoproof.errors import DataError
from histoproof.signals import StopRequest

rates = st.lists(st.floats(0.01, 1e9), min_size=1, max_size=60)


@given(st.integers(1, 400))
def test_the_interval_of_a_median_holds_what_it_says_and_is_the_narrowest_that_does(n: int) -> None:
    from scipy.stats import binom

    k = median_rank(n)
    if k is None:
        assert n < 6
        return
    assert 2 * binom.cdf(k - 1, n, 0.5) <= 0.05 + 1e-12
    assert 2 * binom.cdf(k, n, 0.5) > 0.05


def test_thousands_of_samples_get_a_rank_too() -> None:
    assert median_rank(10_000) == pytest.approx(4902, abs=2)


@given(rates, st.floats(0.01, 100))
def test_an_estimate_holds_its_median_forgets_the_order_and_scales(samples: list[float], factor: float) -> None:
    found = estimate(samples)
    assert found.median == statistics.median(samples)
    assert found.samples == tuple(samples)
    assert (found.low is None) == (found.high is None) == (len(samples) < 6)
    if found.low is not None and found.high is not None:
        assert found.low <= found.median <= found.high
    again = estimate(samples[::-1])
    assert (again.median, again.low, again.high) == (found.median, found.low, found.high)
    assert estimate([sample * factor for sample in samples]).median == pytest.approx(found.median * factor)


def test_of_many_measurements_the_interval_misses_few() -> None:
    drawn = -np.log(1 - rng.uniform_at(rng.key(0, "test"), np.arange(2000), 12))  # exponential: far from symmetric
    missed = 0
    for row in drawn.tolist():
        found = estimate(row)
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= np.log(2) <= found.high
    assert missed / 2000 < 0.05


def test_what_takes_no_time_at_all_is_still_calibrated() -> None:
    assert 1 <= calibrated(Stage(float), 0.01, lambda: None, StopRequest()) <= 1 << 20


def of(seconds: float) -> Estimate:
    return estimate([1 / seconds])


@given(st.floats(0.001, 10), st.floats(0.001, 10), st.floats(0.001, 10), st.floats(0.001, 40))
def test_the_bottleneck_is_the_slowest_stage(data: float, transfer: float, compute: float, whole: float) -> None:
    found = bottleneck({"data": of(data), "transfer": of(transfer), "compute": of(compute)}, of(whole))
    assert found is not None
    seconds = {"data": data, "transfer": transfer, "compute": compute}
    assert seconds[found["stage"]] == max(seconds.values())
    assert found["share"] == pytest.approx(max(seconds.values()) / sum(seconds.values()))
    assert 0 <= found["hidden"] <= 1
    side_by_side, in_turn = (
        bottleneck({name: of(s) for name, s in seconds.items()}, of(end))
        for end in (max(seconds.values()), sum(seconds.values()))
    )
    assert side_by_side is not None
    assert in_turn is not None
    assert side_by_side["hidden"] == pytest.approx(1)
    assert in_turn["hidden"] == pytest.approx(0, abs=1e-6)


def test_one_stage_hides_nothing_and_none_has_no_bottleneck() -> None:
    alone = bottleneck({"data": None, "compute": of(2)}, of(2.5))
    assert alone == {"stage": "compute", "share": 1.0, "hidden": None, "of_stage": pytest.approx(0.8)}
    assert bottleneck({"data": None}, of(1)) is None
    assert bottleneck({"data": of(1)}, None) is None


def test_the_lowest_ceiling_binds() -> None:
    found = nearest(estimate([50.0]), {"memory": 100.0, "gemm": 200.0, "absent": None})
    assert found == {
        "name": "memory",
        "fraction": 0.5,
        "images_per_s": 100.0,
        "bounds": {"memory": 100.0, "gemm": 200.0},
    }
    assert nearest(estimate([1.0]), {"absent": None}) is None


def case(name: str, run: Callable[[int], float], **stages: Callable[[int], float]) -> Case:
    @contextmanager
    def opened() -> Iterator[dict[str, Stage]]:
        yield {"end_to_end": Stage(run), **{stage: Stage(work) for stage, work in stages.items()}}

    return Case({"what": "test", "model": name}, opened)


QUICK = Effort(5, 0.0, 2)


def test_every_row_gets_its_samples_in_an_order_that_changes() -> None:
    seen: list[str] = []

    def noted(name: str) -> Callable[[int], float]:
        def run(n: int) -> float:
            if seen[-1:] != [name]:
                seen.append(name)
            return float(n)

        return run

    names = [f"row {n}" for n in range(7)]
    found = run_cases([case(name, noted(name), data=float) for name in names], QUICK, StopRequest())
    assert [one.status for one in found] == ["measured"] * 7
    assert all(len(one.samples[stage]) == 5 for one in found for stage in ("end_to_end", "data"))
    turns = [seen[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(turn) == names for turn in turns)
    assert turns[0] != turns[1]
    assert turns[1] != turns[2]


def test_a_row_without_enough_memory_is_a_row_and_the_others_go_on() -> None:
    def too_much(n: int) -> float:
        torch.empty(1 << 50, dtype=torch.uint8)
        return 1.0

    found = run_cases([case("a", float), case("b", too_much), case("c", float)], QUICK, StopRequest())
    assert [one.status for one in found] == ["measured", "out_of_memory", "measured"]
    assert "can't allocate memory" in str(found[1].reason)
    assert found[1].samples == {}


def test_what_python_and_numpy_cannot_allocate_is_out_of_memory_too() -> None:
    with pytest.raises(MemoryError) as error:
        np.empty(1 << 60, dtype=np.uint8)
    assert out_of_memory(error.value)
    assert out_of_memory(RuntimeError("shapes do not fit")) is None
    assert out_of_memory(ValueError("out of memory")) is None


def test_more_than_the_machine_has_fails_instead_of_being_killed() -> None:
    left = memory.available_bytes()
    if left is None:
        pytest.skip("the machine does not say how much memory is left")
    with guarded(CPU), pytest.raises(RuntimeError, match="allocate memory"):
        torch.empty(
            left + (1 << 30), dtype=torch.uint8
        )  # the kernel alone may promise it, and kill us when it is written to
    assert torch.empty(1 << 20).numel() == 1 << 20


def test_a_users_mistake_ends_its_row_and_ours_is_not_hidden() -> None:
    def mistake(n: int) -> float:
        raise DataError("the disk is gone")

    def ours(n: int) -> float:
        raise RuntimeError("shapes do not fit")

    found = run_cases([case("a", mistake), case("b", float)], QUICK, StopRequest())
    assert [(one.status, one.reason) for one in found] == [("not_measured", "the disk is gone"), ("measured", None)]
    with pytest.raises(RuntimeError, match="do not fit"):
        run_cases([case("a", ours)], QUICK, StopRequest())


@pytest.mark.parametrize("hard", [False, True])
def test_a_signal_ends_it_and_what_was_measured_stays(hard: bool) -> None:
    calls = 0

    def run(n: int) -> float:
        nonlocal calls
        calls += 1
        if calls == 20:
            if hard:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)
        return float(n)

    with StopRequest() as stop:
        found = run_cases([case("a", run), case("b", run), case("c", run)], Effort(50, 0.0, 2), stop)
    assert {one.status for one in found} == {"interrupted"}
    assert sum(one.taken for one in found) > 0
    for one in found:
        assert one.reason == f"stopped by SIGINT: {50 - one.taken} of 50 samples are missing"
        assert one.taken % 2 == 0  # whole turns only
    with StopRequest() as stop:
        assert run_cases([case("d", float)], QUICK, stop)[0].status == "measured"


def test_what_is_not_there_says_why() -> None:
    missing = Case({"what": "test"}, None, reason="no such device")
    found = run_cases([missing, case("a", float)], QUICK, StopRequest())
    assert [(one.status, one.reason) for one in found] == [("not_measured", "no such device"), ("measured", None)]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("cnn", CnnConfig(name="cnn", widths=[8, 16])),
        ("mlp", MlpConfig(name="mlp", hidden=[16, 8])),
        ("logistic", MlpConfig(name="mlp", hidden=[])),
    ],
)
def test_flops_are_those_that_torch_counts(name: str, config: Any) -> None:
    model = models.build(config, 1)
    found = count_flops(model)
    model.eval()  # dropout needs no keys then
    x = torch.zeros(1, 3, 96, 96)
    with FlopCounterMode(display=False) as forward:
        logits = model(x)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(logits.sum(), [p for p in model.parameters() if p.requires_grad])
    assert found.forward == forward.get_total_flops()
    assert found.training == forward.get_total_flops() + backward.get_total_flops()
    assert (found.linear == found.forward) == (name != "cnn")


RECORDED = """\
0, GPU-5e2c6f1e-9f65-3a53-2b2a-0b9b1e0b7a11, 97, 41, 1755, 1980, 2619, 64, 512.33, 0x0000000000000004, 20481, 81559, P0
1, GPU-11111111-2222-3333-4444-555555555555, [N/A], [N/A], 345, 1980, 2619, 31, [Not Supported], [N/A], 0, 81559, P8
"""
APPS = """\
GPU-5e2c6f1e-9f65-3a53-2b2a-0b9b1e0b7a11, 4242, 12000
GPU-5e2c6f1e-9f65-3a53-2b2a-0b9b1e0b7a11, 4243, [N/A]
GPU-11111111-2222-3333-4444-555555555555, 4244, 8000
"""


def test_what_nvidia_smi_prints_is_understood() -> None:
    first, second = gpu.parse_gpus(RECORDED)
    assert (first["clocks.sm"], first["memory.used"], first["pstate"]) == (1755.0, 20481 << 20, "P0")
    assert (second["utilization.gpu"], second["power.draw"]) == (None, None)
    state = gpu.state(first, gpu.parse_apps(APPS))
    assert state["throttled_by"] == ["power cap"]
    assert (state["other_processes"], state["other_processes_bytes"]) == (2, 12000 << 20)
    assert gpu.state(second, [])["throttled_by"] is None
    assert gpu.throttles("0x0000000000000069") == [
        "hardware slowdown",
        "software thermal slowdown",
        "hardware thermal slowdown",
    ]
    assert gpu.throttles("0x1") == []


@given(st.text(max_size=200))
def test_whatever_nvidia_smi_prints_breaks_nothing(text: str) -> None:
    gpu.parse_gpus(text)
    gpu.parse_apps(text)
    gpu.throttles(text)


def test_without_nvidia_smi_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.gpu_now(torch.device("cuda", 0)) == {"absent": "nvidia-smi: FileNotFoundError"}


def test_counters_become_shares() -> None:
    a = Snapshot(10.0, 5.0, 100, (50.0, 1.0, 200.0), {7: 0, 8: 0}, (100, 10, 1.0), 2.0)
    b = Snapshot(12.0, 8.0, 140, (57.0, 2.0, 220.0), {7: 200, 9: 1}, (120, 15, 2.0), 2.5)
    found = between(a, b)
    assert (found["seconds"], found["own_cores"], found["involuntary_per_s"]) == (2.0, 1.5, 20.0)
    assert found["busy_elsewhere_cores"] == pytest.approx(2.0)
    assert found["steal_share"] == pytest.approx(0.05)
    assert found["throttled_share"] == 0.25
    assert found["memory_stalled_share"] == 0.25
    ticks = os.sysconf("SC_CLK_TCK")
    assert busy_others({7: 0}, {7: 2 * ticks, 9: ticks}, 2.0) == (2, 1.5)
    unknown = between(Snapshot(0, 0, 0, None, {}, None, None), Snapshot(1, 1, 0, None, {}, None, None))
    assert (unknown["steal_share"], unknown["throttled_share"], unknown["memory_stalled_share"]) == (None, None, None)


def test_the_conditions_of_a_row_hold_every_key_also_after_an_error() -> None:
    found = Conditions()
    assert found.as_json() == {}
    with pytest.raises(ValueError, match="x"), watched(found, CPU):
        raise ValueError("x")
    with watched(found, CPU):
        sum(range(100_000))
    told = found.as_json()
    assert len(found.pieces) == 2
    assert {
        "seconds",
        "load_1min",
        "own_cores",
        "steal_share",
        "involuntary_switches_per_s",
        "other_processes",
        "cpu_mhz",
        "governor",
        "quota_cores",
        "throttled_share",
        "celsius",
        "memory_stalled_share",
        "memory_available_bytes",
        "gpu",
    } <= set(told)
    assert set(told["other_processes"]) == {"busy", "cores"}  # no names of others' commands


def test_both_kinds_of_cgroup_are_read() -> None:
    assert conditions._quota_v2("150000 100000\n") == 1.5
    assert conditions._quota_v2("max 100000\n") is None
    assert conditions._quota_v2(None) is None
    assert conditions._throttled("nr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n") == (10, 4, 2.5)
    assert conditions._throttled("nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n") == (10, 4, 2.5)


@pytest.mark.parametrize("method", ["VmHWM", "sampled every 5 ms"])
def test_peak_memory_is_of_this_block_alone(method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if method != "VmHWM":
        monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent" / "clear_refs")
    size, deadline = 200 << 20, time.monotonic() + 30
    with PeakRam() as large:
        kept = np.ones(size, dtype=np.uint8)
        while method != "VmHWM" and time.monotonic() < deadline and (large.bytes or 0) < size:
            time.sleep(0.01)
        del kept
    memory.trim()
    with PeakRam() as small:
        pass
    if large.method != method:
        pytest.skip("the kernel's mark cannot be set back here")
    assert large.bytes is not None
    assert small.bytes is not None
    assert large.bytes - small.bytes > size // 2
