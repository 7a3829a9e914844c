"""Why was it slower yesterday? Crafted results, each with one thing that differs; and files that are no results at all."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoproof import rng
from histoproof.bench import compare, compare_words, read_bench
from histoproof.bench.comparing import ratio_interval
from histoproof.bench.measure import estimate
from histoproof.bench.rows import bench_sha256
from histoproof.errors import DataError
from histoproof.files import read_json, write_json, write_text

from .test_cli import as_json, histoproof

Change = Callable[[dict[str, Any]], None]


def samples(rate: float, seed: int, n: int = 12) -> list[float]:
    """About `rate`, give or take 2 %."""
    return (rate * (0.98 + 0.04 * rng.uniform(rng.key(seed, "samples"), n))).tolist()  # type: ignore[no-any-return]


def rate(value: float, seed: int) -> dict[str, Any]:
    return estimate(samples(value, seed)).as_json()


def result(seed: int, *, speed: float = 1.0, batches: tuple[int, ...] = (1, 64)) -> dict[str, Any]:
    """What `bench train` would write, with rates times `speed`."""
    conditions = {
        "busy_elsewhere_cores": 0.0,
        "other_processes": {"busy": 0, "cores": 0.0},
        "steal_share": 0.0,
        "throttled_share": 0.0,
        "quota_cores": None,
        "memory_stalled_share": 0.0,
        "cpu_mhz": {"low": 3000.0, "median": 3000.0, "high": 3000.0},
        "gpu": None,
    }
    rows = []
    for place, batch in enumerate(batches):
        end, data, compute = (rate(r * speed, seed + 10 * place + n) for n, r in enumerate((5000.0, 90000.0, 5500.0)))
        rows.append(
            {
                "what": "train",
                "model": "mlp",
                "device": "cpu",
                "batch_size": batch,
                "precision": "fp32",
                "variant": None,
                "status": "measured",
                "reason": None,
                "images_per_s": end,
                "stages": {"data": data, "transfer": None, "compute": compute},
                "threads": {"intra_op": 1, "workers": 4},
                "conditions": copy.deepcopy(conditions),
            }
        )
    return {
        "format": "histoproof-bench",
        "version": 1,
        "kind": "train",
        "subject": {"store_sha256": "ab" * 32, "settings": {"data": {"store": "s"}, "train": {"shards": 4}}},
        "command": ["histoproof", "bench", "train"],
        "effort": {"samples": 12},
        "environment": {
            "started": f"2026-11-2{seed % 10}T00:00:00+00:00",
            "histoproof": "0.1.0",
            "python": "3.12.1",
            "packages": {"torch": {"version": "2.13.0"}, "numpy": {"version": "2.1"}},
            "cpu": {"model": "EPYC", "available": 4, "capability": "AVX512"},
            "gpu": None,
            "flags": {"blas": "mkl"},
            "variables": {},
            "memory_bytes": 1 << 34,
            "slurm": {"partition": None, "node": None, "job_id": None},
            "git": {"commit": "c" * 40},
            "platform": "Linux",
        },
        "ceilings": {"memory_copy_cpu": {"unit": "bytes/s", **rate(2e10, seed + 99)}},
        "rows": rows,
        "costs": [],
    }


def written(path: Path, content: dict[str, Any]) -> Path:
    content["bench_sha256"] = bench_sha256(content)
    write_json(path, content)
    return path


def pair(folder: Path, change: Change, *, speed: float = 1.0) -> dict[str, Any]:
    a, b = result(1), result(2, speed=speed)
    change(b)
    return compare(written(folder / "a.json", a), written(folder / "b.json", b))


def test_a_file_against_itself_is_identical(tmp_path: Path) -> None:
    path = written(tmp_path / "my results" / "bench.json", result(1))
    found = compare(path, path.parent)
    assert found["identical"]
    assert found["causes"] == []
    assert {row["ratio"]["value"] for row in found["rows"]} == {1.0}
    assert not any(row["changed"] for row in found["rows"])
    assert compare_words(found) == ["identical: both are the same measurement"]


def test_chance_alone_is_no_change_and_nothing_differs(tmp_path: Path) -> None:
    found = pair(tmp_path, lambda b: None)
    assert (found["identical"], found["causes"]) == (False, [])
    assert len(found["rows"]) == 6  # two rows, end to end, data and compute; there is no transfer
    assert not any(row["changed"] for row in found["rows"])
    words = compare_words(found)
    assert "nothing that was recorded differs" in words
    assert any(line.startswith("none can be told from chance") for line in words)


def test_what_is_slower_is_found_row_by_row_and_stage_by_stage(tmp_path: Path) -> None:
    def slow_compute(b: dict[str, Any]) -> None:
        b["rows"][1]["images_per_s"] = rate(2500, 77)
        b["rows"][1]["stages"]["compute"] = rate(2600, 78)

    found = pair(tmp_path, slow_compute)
    changed = {(row["batch_size"], row["stage"]): row for row in found["rows"] if row["changed"]}
    assert set(changed) == {(64, "end_to_end"), (64, "compute")}
    row = changed[64, "end_to_end"]
    assert row["changed"] == "slower"
    assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"] < 0.6
    assert row["p_value"] <= row["p_holm"] < 0.05
    assert any("slower: mlp cpu fp32 batch 64, end to end: 5,0" in line for line in compare_words(found))


def every_row(**conditions: Any) -> Change:
    def change(b: dict[str, Any]) -> None:
        for row in b["rows"]:
            row["conditions"] |= conditions

    return change


def at(*path: str, value: Any) -> Change:
    def change(b: dict[str, Any]) -> None:
        here = b
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "cause", "evidence"),
    [
        (at("environment", "cpu", "model", value="Xeon"), "other CPU", "EPYC -> Xeon"),
        (at("environment", "slurm", "node", value="n7"), "another node", "None -> n7"),
        (at("environment", "gpu", value={"name": "H100"}), "other GPU", "None -> H100"),
        (at("environment", "packages", "torch", value={"version": "2.14"}), "other versions", "torch 2.13.0 -> 2.14"),
        (
            at("environment", "variables", value={"OMP_NUM_THREADS": "1"}),
            "other environment variables",
            "OMP_NUM_THREADS",
        ),
        (at("environment", "git", value=None), "another commit in the folder it ran in", "cccccccccc -> None"),
        (at("subject", "store_sha256", value="cd" * 32), "other patches", "abababababab -> cdcdcdcdcdcd"),
        (at("subject", "settings", "train", value={"shards": 1}), "other settings", "train.shards 4 -> 1"),
        (every_row(busy_elsewhere_cores=2.0), "others used the CPU", "4.00 -> 2.00"),
        (every_row(steal_share=0.5), "another machine took the CPU (steal)", "1.000 -> 0.500"),
        (every_row(throttled_share=0.4), "the CPU quota throttled it", "1.000 -> 0.600"),
        (every_row(memory_stalled_share=0.5), "memory was short", "1.000 -> 0.500"),
        (every_row(cpu_mhz={"low": 1, "median": 1500.0, "high": 1}), "another CPU clock", "3000 -> 1500 MHz"),
        (at("ceilings", "memory_copy_cpu", value={"unit": "bytes/s", **rate(1e10, 5)}), "the machine itself", "x 0.50"),
    ],
)
def test_what_differs_is_named_as_the_cause_with_its_evidence(
    tmp_path: Path, change: Change, cause: str, evidence: str
) -> None:
    found = pair(tmp_path, change, speed=0.5)
    assert found["causes"][0]["cause"].startswith(cause)
    assert evidence in found["causes"][0]["evidence"]
    assert 0 < found["causes"][0]["score"] <= 1
    assert any(line.startswith(f"  1. {cause}") for line in compare_words(found))


def test_threads_are_named(tmp_path: Path) -> None:
    def change(b: dict[str, Any]) -> None:
        for row in b["rows"]:
            row["threads"] = {"intra_op": 1, "workers": 1}

    found = pair(tmp_path, change, speed=0.3)
    assert found["causes"][0]["cause"] == "other threads"


def test_causes_are_ranked_by_what_they_explain(tmp_path: Path) -> None:
    def change(b: dict[str, Any]) -> None:
        every_row(busy_elsewhere_cores=2.0, steal_share=0.03)(b)  # half the cores gone; a little stolen
        b["environment"]["packages"]["numpy"] = {"version": "2.2"}

    causes = [one["cause"] for one in pair(tmp_path, change, speed=0.5)["causes"]]
    assert causes == ["others used the CPU", "other versions", "another machine took the CPU (steal)"]


def test_what_points_the_other_way_is_no_cause(tmp_path: Path) -> None:
    found = pair(tmp_path, every_row(busy_elsewhere_cores=2.0), speed=2.0)
    assert found["causes"] == []
    assert any("nothing that was recorded differs and would explain it" in line for line in compare_words(found))


def test_rows_of_one_file_alone_are_told(tmp_path: Path) -> None:
    a, b = result(1, batches=(1, 64)), result(2, batches=(64, 256))
    b["rows"].append(
        {**result(3, batches=(1,))["rows"][0], "status": "out_of_memory", "reason": "no", "images_per_s": None}
    )
    b["rows"][-1]["stages"] = {"data": None, "transfer": None, "compute": None}
    found = compare(written(tmp_path / "a.json", a), written(tmp_path / "b.json", b))
    assert {row["batch_size"] for row in found["rows"]} == {64}
    assert [row["batch_size"] for row in found["only_a"]] == [1]
    assert [row["batch_size"] for row in found["only_b"]] == [256]


def test_two_kinds_have_no_row_in_common(tmp_path: Path) -> None:
    other = result(2)
    other["kind"] = "loader"
    for row in other["rows"]:
        row["what"] = "loader"
    found = compare(written(tmp_path / "a.json", result(1)), written(tmp_path / "b.json", other))
    assert found["rows"] == found["causes"] == []
    assert "no row was measured in both: A is of bench train, B of bench loader" in compare_words(found)


@settings(max_examples=30)
@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=20), st.lists(st.floats(1, 1e6), min_size=2, max_size=20))
def test_the_ratio_lies_in_its_interval_and_scales(a: list[float], b: list[float]) -> None:
    low, high = ratio_interval(a, b, "law")
    assert 0 < low <= high
    assert ratio_interval(a, b, "law") == (low, high)
    doubled = ratio_interval(a, [2 * value for value in b], "law")
    assert list(doubled) == pytest.approx([2 * low, 2 * high])
    assert min(b) / max(a) <= low <= high <= max(b) / min(a)


def test_of_many_pairs_that_do_not_differ_few_are_called_changed(tmp_path: Path) -> None:
    batches = tuple(range(1, 101))
    calls = 0
    for seed in range(3):
        a, b = result(10_000 * seed, batches=batches), result(10_000 * seed + 5000, batches=batches)
        found = compare(written(tmp_path / "a.json", a), written(tmp_path / "b.json", b))
        assert len(found["rows"]) == 300
        calls += sum(row["changed"] is not None for row in found["rows"])
    assert calls <= 1  # Holm: in 19 of 20 files not one


def spoiled(content: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    here: Any = content
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows", 0, "images_per_s", "samples"), []),
        (("rows", 0, "images_per_s", "samples"), [1.0, -1.0]),
        (("rows", 0, "images_per_s", "samples"), [1.0, None]),
        (("rows", 0, "images_per_s", "samples"), ["1"]),
        (("rows", 0, "images_per_s", "median"), 0.0),
        (("rows", 0, "images_per_s"), 5),
        (("rows", 0, "stages"), None),
        (("rows", 0, "conditions"), []),
        (("rows", 0, "batch_size"), "64"),
        (("rows",), {}),
        (("rows",), [3]),
        (("ceilings",), []),
        (("ceilings", "memory_copy_cpu", "samples"), [math.inf]),
        (("environment",), None),
        (("format",), "histoproof-audit"),
        (("version",), 2),
    ],
)
def test_a_damaged_result_is_refused_in_words(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    bad = written(tmp_path / "b.json", spoiled(result(1), *path, value=value))
    with pytest.raises(DataError) as error:
        compare(written(tmp_path / "a.json", result(1)), bad)
    assert str(bad) in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"format": "histoproof-bench", "version": 1}',
        "[" * 100_000,
        '"' + "x" * 1000 + '"',
        "\udcff",
    ],
    ids=range(8),
)
def test_what_is_no_result_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError):
        read_bench(tmp_path / "b.json")


def test_a_result_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", result(1))
    content = read_json(path)
    content["rows"][0]["images_per_s"]["median"] *= 2
    write_json(path, content)
    with pytest.raises(DataError, match="digest does not hold"):
        read_bench(path)


def test_odd_conditions_break_nothing(tmp_path: Path) -> None:
    odd: tuple[dict[str, Any], ...] = (
        {},
        {"steal_share": "much", "cpu_mhz": 5, "gpu": {"sm_mhz": None}, "other_processes": None},
        {"steal_share": 1e308, "busy_elsewhere_cores": -5, "quota_cores": 0, "cpu_mhz": {"median": 0}},
    )
    for n, conditions in enumerate(odd):

        def change(b: dict[str, Any], found: dict[str, Any] = conditions) -> None:
            for row in b["rows"]:
                row["conditions"] = found

        compare_words(pair(tmp_path / str(n), change, speed=0.5))


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    found = pair(tmp_path, at("environment", "cpu", "model", value="Xeon\x1b[2J\nA: forged"), speed=0.5)
    assert all(line.isprintable() for line in compare_words(found))


@pytest.mark.slow
def test_exit_codes(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.json", result(1)), written(tmp_path / "b.json", result(2, speed=0.5))
    write_text(tmp_path / "c.yaml", "seed: 1\n")
    done = histoproof("bench", "compare", a, b, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"identical", "a", "b", "rows", "causes", "multiplicity"} <= set(as_json(done))
    refused = histoproof("bench", "compare", a, tmp_path / "c.yaml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: ")
    for wrong in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match="no such file"):
            compare(a, wrong)


def test_a_row_of_equal_samples_is_compared_too(tmp_path: Path) -> None:
    def same(b: dict[str, Any]) -> None:
        b["rows"][0]["images_per_s"] = estimate([5000.0] * 12).as_json()

    a, b = result(1), result(2)
    same(a)
    same(b)
    found = compare(written(tmp_path / "a.json", a), written(tmp_path / "b.json", b))
    assert (found["rows"][0]["ratio"], found["rows"][0]["p_value"]) == ({"value": 1.0, "low": 1.0, "high": 1.0}, 1.0)
    assert np.isfinite([row["p_holm"] for row in found["rows"]]).all()
