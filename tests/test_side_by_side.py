"""The side-by-side benchmark: every contender does the same work, every sample is kept, README says what the results say."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from histoproof.data.pcam import official_name
from histoproof.errors import DataError

from .conftest import REPOSITORY, lacking

sys.path.append(str(REPOSITORY / "benchmarks"))

from side_by_side import loaders, packing, results, training
from side_by_side.contender import Contender, UnequalError, check, scaled, shuffled
from side_by_side.patches import Patches, patches
from side_by_side.timing import Plan, Task, one_after_the_other, ratio, run_rounds

N, BATCH = 100, 32
PEERS = {"webdataset", "datasets", "tensorstore"}
BUILT_IN = [*loaders.COURSE, "hdf5 batches, float32", "hdf5 batches, gzip", loaders.OURS, loaders.OURS_RAM]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", REPOSITORY / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme = _script("readme")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Patches:
    return patches(None, tmp_path_factory.mktemp("side by side"), N)


def _opened(data: Patches, name: str) -> Contender:
    return next(open_it for listed, _, open_it in loaders.contenders(data, BATCH) if listed == name)()


# Python 3.12 warns of forking, as DataLoader's workers do, beside threads.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_contender_delivers_the_same_patches_with_their_labels(data: Patches, name: str) -> None:
    contender = _opened(data, name)
    check(contender, data.train().images, data.labels())
    contender.close()


@pytest.mark.peers
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", sorted(PEERS))
def test_every_peer_delivers_the_same_patches_with_their_labels(data: Patches, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        lacking(f"{name} is not installed (extra [bench])")
    check(_opened(data, name), data.train().images, data.labels())


def test_every_contender_that_is_measured_is_checked_here(data: Patches) -> None:
    assert {name for name, _, _ in loaders.contenders(data, BATCH)} == PEERS | set(BUILT_IN)


Batch = tuple[torch.Tensor, torch.Tensor]


def _wrong_label(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return images, 1 - labels


def _by_256(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return images * (255 / 256), labels


def _not_scaled(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return images * 255, labels


def _half(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return images.bfloat16(), labels


def _turned(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return images.transpose(2, 3), labels


def _channels_swapped(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return images.flip(1), labels


def _one_patch_for_another(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return torch.cat([images[1:2], images[1:]]), labels


@pytest.mark.parametrize(
    "fault",
    [_wrong_label, _by_256, _not_scaled, _half, _turned, _channels_swapped, _one_patch_for_another],
    ids=lambda f: f.__name__,
)
def test_a_contender_that_does_other_work_is_refused(data: Patches, fault: Callable[..., Batch]) -> None:
    with pytest.raises(UnequalError):
        check(_made(data, lambda number: shuffled(N, BATCH, number), fault), data.train().images, data.labels())


def test_a_contender_that_leaves_patches_out_is_refused(data: Patches) -> None:
    with pytest.raises(UnequalError, match="36 of 100"):
        check(_made(data, lambda _: iter([np.arange(N - 36)[::-1].copy()])), data.train().images, data.labels())


def test_a_contender_that_reads_in_the_order_of_the_file_is_refused(data: Patches) -> None:
    with pytest.raises(UnequalError, match="order"):
        check(_made(data, lambda _: iter([np.arange(N)])), data.train().images, data.labels())


def _made(
    data: Patches, order: Callable[[int], Iterator[Any]], fault: Callable[..., Batch] = lambda *batch: batch
) -> Contender:
    images, labels = torch.from_numpy(np.array(data.train().images)), torch.from_numpy(data.labels().copy()).float()

    def epoch(number: int) -> Iterator[Batch]:
        for rows in order(number):
            yield fault(scaled(images[rows]), labels[rows])

    return Contender("made", "", epoch, 1)


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(data: Patches, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PEERS:
        monkeypatch.setitem(sys.modules, name, None)
    present, missing = loaders.opened(data, BATCH)
    for contender in present:
        contender.close()
    assert [contender.name for contender in present] == BUILT_IN
    assert set(missing) == PEERS
    assert all(name in row["not_measured"] and "[bench]" in row["not_measured"] for name, row in missing.items())


def test_each_round_runs_each_task_and_the_order_turns_round() -> None:
    ran: list[str] = []

    def task(name: str) -> Task:
        def block() -> int:
            ran.append(name)
            return 1

        return Task(name, "", block, 1)

    threads = torch.get_num_threads()
    samples = run_rounds([task("a"), task("b")], Plan(3, least_s=0.0))
    assert "".join(ran[-6:]) == "abbaab"
    assert {name: len(rates) for name, rates in samples.items()} == {"a": 3, "b": 3}
    assert torch.get_num_threads() == threads


def test_a_ratio_is_taken_round_by_round() -> None:
    found = ratio("a", "b", {"a": [10.0, 30.0, 80.0], "b": [5.0, 10.0, 20.0]}, goal=2.5)
    assert (found["samples"], found["median"], found["low"], found["high"]) == ([2.0, 3.0, 4.0], 3.0, 2.0, 4.0)
    assert one_after_the_other([2.0], [2.0]) == [1.0]


def test_patches_once_written_are_taken_again(data: Patches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("side_by_side.patches._copy", lambda *_: pytest.fail("they were written again"))
    assert patches(None, data.folder.parent, N) == data


@pytest.mark.parametrize("value", [np.nan, 0.5, 1e5, -1.0])
def test_damaged_patches_are_refused_since_not_all_could_deliver_them(
    tmp_path: Path, write_split: Callable[..., None], value: float
) -> None:
    x = np.zeros((4, 96, 96, 3), np.float32)
    x[2, 0, 0, 0] = value
    for split in ("train", "valid"):
        write_split(tmp_path / "data", split, x, [0, 1, 0, 1])
    with pytest.raises(DataError, match="whole numbers"):
        patches(tmp_path / "data", tmp_path / "scratch", 4)
    assert not list((tmp_path / "scratch").iterdir())


def test_patches_without_labels_are_refused(tmp_path: Path, write_split: Callable[..., None]) -> None:
    write_split(tmp_path / "data", "train", np.zeros((4, 96, 96, 3), np.uint8))
    with pytest.raises(DataError, match="labels"):
        patches(tmp_path / "data", tmp_path / "scratch", 4)


def test_the_files_to_pack_hold_no_patch_twice(data: Patches, tmp_path: Path) -> None:
    packing.write_course_form(data, tmp_path / "many", 2 * N + 7)
    with h5py.File(tmp_path / "many" / official_name("train", "x.h5")) as file:
        x = file["x"][:]
        assert file["x"].chunks is None
    assert x.dtype == np.float32
    assert len(np.unique(x.reshape(len(x), -1), axis=0)) == 2 * N + 7
    assert np.array_equal(x[:N], data.train().images)


def test_training_goes_on_from_block_to_block_over_every_patch(data: Patches) -> None:
    config = training._config("baseline", data, BATCH)
    with training.end_to_end(config, steps=3) as (block, _):
        assert [block(), block(), block()] == [3 * BATCH, N - 3 * BATCH, 3 * BATCH]  # 4 steps an epoch


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of --quick."""
    out = tmp_path_factory.mktemp("smoke") / "results"
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "bench.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "loaders: 128 synthetic patches" in done.stdout
    return out


def test_a_results_file_holds_every_sample_and_ratios_that_follow_from_them(smoke: Path) -> None:
    found = results.load(smoke)
    assert list(found) == list(results.PARTS)
    for part, content in found.items():
        assert (content["format"], content["version"], content["part"]) == (results.FORMAT, results.VERSION, part)
        assert content["quick"] is True
        assert content["environment"]["packages"]["torch"]
        assert "folder" not in content["environment"]
        rows = {row["name"]: row for row in content["rows"]}
        for row in rows.values():
            if "not_measured" not in row:
                assert len(row["samples"]) == row["n"] == content["plan"]["rounds"] * len(content["processes"])
                assert all(sample > 0 for sample in row["samples"])
        assert content["ratios"]
        for one in content["ratios"]:
            pairs = zip(rows[one["of"]]["samples"], rows[one["to"]]["samples"], strict=True)
            assert one["samples"] == pytest.approx([a / b for a, b in pairs])
    assert {row["name"] for row in found["loaders"]["rows"]} >= PEERS | set(BUILT_IN)
    assert found["packing"]["memory"][0]["peak_mb"] > found["packing"]["memory"][0]["before_mb"]


def test_what_another_process_measured_is_added_sample_by_sample(smoke: Path) -> None:
    first = results.load(smoke)["loaders"]
    both = results.joined(first, first)
    assert len(both["processes"]) == 2
    for key in ("rows", "ratios"):
        for a, b in zip(first[key], both[key], strict=True):
            if "samples" in a:
                assert b["samples"] == [*a["samples"], *a["samples"]]
                assert (b["n"], b["low"], b["high"]) == (2 * a["n"], a["low"], a["high"])
            else:
                assert a == b


@pytest.mark.parametrize(
    "change", [{"plan": {}}, {"data": {}}, {"peers": {"datasets": "0"}}, {"environment": {"python": "2.7"}}]
)
def test_what_was_measured_otherwise_is_never_mixed_in(smoke: Path, change: dict[str, Any]) -> None:
    first = results.load(smoke)["loaders"]
    with pytest.raises(DataError, match="otherwise"):
        results.joined(first | change, first)


def test_readme_is_made_of_results_whatever_was_measured(smoke: Path) -> None:
    found = results.load(smoke)
    tables = readme.render(found)
    for content in found.values():
        words = {row["name"]: row["words"] for row in content["rows"]}
        for one in content["ratios"]:
            assert all(
                words[one[side]].split("histoproof: ")[-1].split("histoproof ")[-1] in tables for side in ("of", "to")
            )
        assert all(row["words"] in tables for row in content["rows"] if "not_measured" in row)
    text = readme.replaced(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n", tables)
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert readme.replaced(text, tables) == text


def test_readme_without_its_marks_or_without_a_part_is_refused(smoke: Path) -> None:
    with pytest.raises(DataError, match="mark"):
        readme.replaced("no marks", "")
    with pytest.raises(DataError, match="cnn"):
        readme.render({part: content for part, content in results.load(smoke).items() if part != "cnn"})


def test_a_smoke_test_never_overwrites_the_results() -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "bench.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_readme_says_what_the_committed_results_say() -> None:
    found = results.load(REPOSITORY / "benchmarks" / "results")
    assert list(found) == list(results.PARTS)
    assert not any(content["quick"] for content in found.values())
    text = (REPOSITORY / "README.md").read_text()
    assert readme.replaced(text, readme.render(found)) == text, "run `python benchmarks/readme.py`"


def test_committed_results_speak_of_no_one_machine() -> None:
    for path in (REPOSITORY / "benchmarks" / "results").glob("*.json"):
        strings = re.findall(r'"(/[^"]*)"', json.dumps(json.loads(path.read_text())))
        assert not strings, path
