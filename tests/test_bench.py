"""Benchmarks as a user meets them: every row says what it is, what bound it, and, where it was not measured, why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from histoproof import bench
from histoproof.bench.result import described
from histoproof.errors import ConfigError, DataError, OutputError
from histoproof.files import read_json
from histoproof.train import train

from .test_cli import as_json, histoproof

CONFIG = """
data: {store: STORE, standardize: train}
model: {name: mlp, hidden: [8]}
augment: {d4: true, brightness: 0.1}
train: {epochs: 1, batch_size: 16, shards: 2}
evaluate: {bootstrap: 100}
"""
ROW = {
    "what",
    "model",
    "device",
    "batch_size",
    "precision",
    "variant",
    "status",
    "reason",
    "images_per_s",
    "stages",
    "bottleneck",
    "ceiling",
    "peak_ram_bytes",
    "peak_vram_bytes",
    "threads",
    "conditions",
}
TOP = {
    "format",
    "version",
    "kind",
    "subject",
    "command",
    "environment",
    "ceilings",
    "rows",
    "costs",
    "bench_sha256",
}


@pytest.fixture
def config(tmp_path: Path, store: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.replace("STORE", str(store)))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "c.yaml").write_text(CONFIG.replace("STORE", str(store)))
    train(folder / "c.yaml", out=folder / "run")
    return folder / "run"


def holds(content: dict[str, Any], out: Path, *, samples: int) -> list[dict[str, Any]]:
    """What every result promises; its measured rows."""
    assert set(content) >= TOP
    assert {path.name for path in out.iterdir()} == {"bench.json", "bench.md", "throughput.svg", "throughput.png"}
    assert read_json(out / "bench.json") == content == bench.read_bench(out) == bench.read_bench(out / "bench.json")
    assert all(set(row) >= ROW for row in content["rows"])
    measured = [row for row in content["rows"] if row["status"] == "measured"]
    for row in measured:
        assert row["reason"] is None
        for rate in (row["images_per_s"], *filter(None, row["stages"].values())):
            assert len(rate["samples"]) == samples
            assert min(rate["samples"]) > 0
        assert set(row["stages"]) == {"data", "transfer", "compute"}
        assert row["peak_ram_bytes"] > 1 << 20
        assert row["conditions"]["seconds"] > 0
    for row in content["rows"]:
        assert (row["status"] == "measured") == (row["reason"] is None)
    for one in content["ceilings"].values():
        assert {"unit", "median", "low", "high", "samples"} <= set(one)
    assert (out / "throughput.png").read_bytes().startswith(b"\x89PNG")
    assert "| images/s |" in (out / "bench.md").read_text()
    return measured


def test_the_loader_in_a_folder_with_a_space(tmp_path: Path, store: Path, config: Path) -> None:
    out = tmp_path / "my results" / "loader"
    content = bench.loader(store, batch_sizes=[16, "1"], devices=["cpu"], quick=True, config=config, out=out)
    rows = holds(content, out, samples=6)
    assert [(row["precision"], row["batch_size"]) for row in rows] == [
        ("fp32", 1),
        ("fp32", 16),
        ("bf16", 1),
        ("bf16", 16),
    ]
    for row in rows:
        assert row["images_per_s"]["low"] <= row["images_per_s"]["median"] <= row["images_per_s"]["high"]
        assert row["stages"]["transfer"] is None
        assert row["bottleneck"]["stage"] in ("data", "compute")
        assert row["ceiling"]["name"] == "gather_convert_cpu"
    assert content["subject"]["store_sha256"] == read_json(store / "manifest.json")["content_sha256"]
    assert content["subject"]["settings"]["standardize"] is True
    lines = bench.words(content)
    assert lines[-1] == f"bench: {out}"
    assert "images/s" in lines[0]


def test_a_training_says_what_binds_it_and_what_is_paid_beside_it(tmp_path: Path, config: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    content = bench.train(
        config, batch_sizes=[4, 512], precisions=["fp32"], models=["mlp", "cnn"], samples=2, quick=True, out=out
    )
    rows = holds(content, out, samples=2)
    assert [(row["model"], row["device"], row["batch_size"]) for row in rows if row["device"] == "cpu"] == [
        ("mlp", "cpu", 4),
        ("cnn", "cpu", 4),
    ]
    mlp, cnn = (row for row in rows if row["device"] == "cpu")
    assert mlp["ceiling"]["name"] in ("gemm_mlp_b4_fp32_cpu", "cache_copy_cpu", "memory_copy_cpu", "gather_convert_cpu")
    assert cnn["ceiling"]["name"] == "compute_only"
    assert cnn["ceiling"]["of_gemm"] > 0
    for row in (mlp, cnn):
        assert row["images_per_s"]["low"] is None  # two samples have no interval
        assert all(row["stages"][name] for name in ("data", "compute"))
        assert row["threads"]["workers"] >= 1
    large = [row for row in content["rows"] if row["batch_size"] == 512 and row["device"] == "cpu"]
    assert {row["status"] for row in large} == {"not_measured"}
    assert "512" in large[0]["reason"]
    assert [(cost["what"], cost["model"], cost["device"]) for cost in content["costs"]][:2] == [
        ("epoch", "mlp", "cpu"),
        ("epoch", "cnn", "cpu"),
    ]
    for cost in content["costs"]:
        assert cost["valid_patches"] == cost["valid_patches_timed"] == 96
        assert all(cost[name]["seconds"] > 0 for name in ("validation", "checkpoints"))
        assert all(cost[name]["share"] < 1 for name in ("logging", "validation", "checkpoints"))
    assert sorted(path for path in tmp_path.rglob("*") if out not in (path, *path.parents)) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_rows_that_say_so(tmp_path: Path, store: Path) -> None:
    content = bench.loader(store, devices=["cuda"], quick=True, out=tmp_path / "out")
    assert len(content["rows"]) == 12
    assert {(row["status"], row["device"]) for row in content["rows"]} == {("not_measured", "cuda")}
    assert "CPU build" in content["rows"][0]["reason"] or "no CUDA device" in content["rows"][0]["reason"]
    assert len([line for line in bench.words(content) if line.startswith("not measured: 12 rows")]) == 1


def test_inference_plain_and_averaged(tmp_path: Path, run: Path) -> None:
    weights = (run / "checkpoints" / "best.safetensors").read_bytes()
    asked: dict[str, Any] = {
        "batch_sizes": [8],
        "devices": ["cpu"],
        "precisions": ["fp32"],
        "samples": 2,
        "quick": True,
    }
    content = bench.infer(run, **asked, out=tmp_path / "out")
    rows = holds(content, tmp_path / "out", samples=2)
    assert [row["variant"] for row in rows] == [None, "d4"], bench.words(content)
    assert all(row["stages"]["compute"] and row["stages"]["data"] for row in rows)
    (cost,) = content["costs"]
    assert (cost["what"], cost["variant"]) == ("d4", "d4")
    pairs = zip(*(row["images_per_s"]["samples"] for row in rows), strict=True)
    assert cost["ratio"]["samples"] == [plain / averaged for plain, averaged in pairs]
    assert (run / "checkpoints" / "best.safetensors").read_bytes() == weights
    assert content["subject"]["weights_sha256"] == read_json(run / "summary.json")["best_weights_sha256"]


def test_the_audit_beside_plain_reads(tmp_path: Path, official: Path, store: Path) -> None:
    content = bench.audit(official, quick=True, samples=1, out=tmp_path / "a")
    rows = holds(content, tmp_path / "a", samples=1)
    assert [row["variant"] for row in rows] == [None, "read", "hdf5"]
    size = sum(path.stat().st_size for path in official.iterdir())
    assert content["subject"]["bytes"] == size
    assert content["subject"]["n"] == 416
    for row in rows:
        assert row["bytes_per_s"]["median"] == pytest.approx(row["images_per_s"]["median"] * size / 416)
    assert rows[0]["ceiling"]["name"] == "file_read"
    assert [cost["variant"] for cost in content["costs"]] == ["read", "hdf5"]
    assert any("GB/s of files" in line for line in bench.words(content))
    packed = bench.audit(store, samples=1, out=tmp_path / "b")
    assert [row["variant"] for row in holds(packed, tmp_path / "b", samples=1)] == [None, "read"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch_sizes": ["0"]}, "--batch-sizes '0'"),
        ({"batch_sizes": ["1", "x"]}, "--batch-sizes 'x'"),
        ({"batch_sizes": ["٣"]}, "--batch-sizes"),
        ({"batch_sizes": [-4]}, "--batch-sizes '-4'"),
        ({"batch_sizes": [10**9]}, "1 to 1,000,000"),
        ({"batch_sizes": []}, "empty"),
        ({"devices": ["gpu"]}, "--devices 'gpu'"),
        ({"precisions": ["int8"]}, "fp32, bf16, fp16"),
        ({"split": "test"}, "train, valid"),
        ({"samples": 0}, "--samples 0"),
        ({"sets": ["seed=1"]}, "--config"),
    ],
)
def test_what_cannot_be_asked_is_answered_before_anything_is_made(
    tmp_path: Path, store: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        bench.loader(store, out=tmp_path / "out", **arguments)
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_taken_is_said_at_once(tmp_path: Path, store: Path, config: Path) -> None:
    with pytest.raises(DataError, match="no such store"):
        bench.loader(tmp_path / "absent", out=tmp_path / "out")
    with pytest.raises(ConfigError, match="absent.yaml"):
        bench.train(tmp_path / "absent.yaml", out=tmp_path / "out")
    with pytest.raises(ConfigError, match="--models 'vit'"):
        bench.train(config, models=["vit"], out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        bench.audit(tmp_path / "empty", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="never overwritten"):
        bench.loader(store, out=tmp_path / "taken")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        bench.loader(store, out=tmp_path / "file" / "out")


def test_a_place_that_cannot_be_written_to(mounted: Callable[[str], Path], store: Path) -> None:
    folder = mounted("ro")
    with pytest.raises(OutputError, match="read-only|Read-only"):
        bench.loader(store, out=folder / "out")


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path, store: Path) -> None:
    options = [
        "--store",
        store,
        "--devices",
        "cpu",
        "--batch-sizes",
        "4",
        "--precisions",
        "fp32",
        "--quick",
        "--samples",
        "2",
    ]
    told = histoproof("bench", "loader", *options, cwd=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-1] == "bench: bench/loader-001"
    done = histoproof("bench", "loader", *options, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert as_json(done) == read_json(tmp_path / "bench" / "loader-002" / "bench.json")
    assert as_json(done)["command"][:3] == ["histoproof", "bench", "loader"]
    compared = histoproof("bench", "compare", "bench/loader-001", "bench/loader-002/bench.json", "--json", cwd=tmp_path)
    assert compared.returncode == 0
    assert as_json(compared)["identical"] is False
    wrong = histoproof("bench", "loader", *options, "--devices", "tpu", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: --devices 'tpu'")
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == ["loader-001", "loader-002"]


def test_help_and_mistakes_need_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['histoproof', 'bench', 'train', '--help']\n"
        "from histoproof.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'h5py', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--batch-sizes" in done.stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_keeps_what_was_measured(tmp_path: Path, store: Path, name: str) -> None:
    options = ["--store", str(store), "--devices", "cpu", "--batch-sizes", "4", "--samples", "10000", "--quick"]
    command = [sys.executable, "-m", "histoproof", "bench", "loader", *options, "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*.tmp/.bench-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(1.0)
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.Signals[name], err
    assert f"stopped by {name}" in out
    assert "Traceback" not in err
    content = bench.read_bench(tmp_path / "out")
    assert content["stopped"] == name
    assert {row["status"] for row in content["rows"]} == {"interrupted"}
    assert all("samples are missing" in row["reason"] for row in content["rows"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_too_little_memory_is_a_row_and_no_crash(tmp_path: Path, store: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from histoproof import bench\n"
        "import torch\n"
        "now = int(next(l for l in open('/proc/self/status') if l.startswith('VmSize')).split()[1]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + (2 << 30), resource.RLIM_INFINITY))\n"
        "bench.loader(Path(sys.argv[1]), batch_sizes=[4, 50_000], devices=['cpu'], precisions=['fp32'], samples=1, quick=True,"
        " out=Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    small, large = bench.read_bench(tmp_path / "out")["rows"]
    assert small["status"] == "measured"
    assert (large["status"], large["images_per_s"]) == ("out_of_memory", None)
    assert "allocate memory" in large["reason"]
    assert "out of memory" in (tmp_path / "out" / "bench.md").read_text()


def test_slurm_is_known_from_its_own_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_PARTITION": "gpu_h100", "SLURM_JOB_ID": "77", "SLURMD_NODENAME": "gcn4"}.items():
        monkeypatch.setenv(name, value)
    slurm = described("cpu")["slurm"]
    assert (slurm["partition"], slurm["job_id"], slurm["node"]) == ("gpu_h100", "77", "gcn4")


def test_the_sealed_split_is_not_read(tmp_path: Path, store: Path) -> None:
    done = histoproof("bench", "loader", "--store", store, "--split", "test", cwd=tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_transfer_and_its_memory_are_measured(tmp_path: Path, store: Path, config: Path, run: Path) -> None:
    loaded = bench.loader(store, batch_sizes=[16], devices=["cuda"], quick=True, out=tmp_path / "a")
    trained = bench.train(
        config,
        ["data.residency=disk"],
        batch_sizes=[16],
        devices=["cuda"],
        models=["mlp", "cnn"],
        quick=True,
        out=tmp_path / "b",
    )
    inferred = bench.infer(run, batch_sizes=[16], devices=["cuda"], quick=True, out=tmp_path / "c")
    for content in (loaded, trained, inferred):
        for row in content["rows"]:
            assert row["status"] == "measured", row["reason"]
            assert row["stages"]["transfer"]
            assert row["peak_vram_bytes"] > 0
            assert row["conditions"]["gpu"]
        assert "transfer_cuda" in content["ceilings"]
    resident = bench.train(
        config, ["data.residency=device"], batch_sizes=[16], devices=["cuda"], quick=True, out=tmp_path / "d"
    )
    assert all(row["stages"]["transfer"] is None for row in resident["rows"])
    assert os.listdir(tmp_path / "a")  # noqa: PTH208
    assert json.loads((tmp_path / "a" / "bench.json").read_text())["environment"]["gpu"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_too_little_memory_on_a_gpu_is_a_row(tmp_path: Path, store: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        content = bench.loader(
            store, batch_sizes=[4, 100_000], devices=["cuda"], precisions=["fp32"], quick=True, out=tmp_path / "out"
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [row["status"] for row in content["rows"]] == ["measured", "out_of_memory"]
