"""The program: one JSON document with --json, words for people without, exit codes 0, 1 and 2, and never a traceback."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoproof.files import read_lines

CONFIG = """
data: {store: STORE}
model: {name: mlp, hidden: [8]}
optim: {lr: 0.01}
train: {epochs: 1, batch_size: 64}
evaluate: {bootstrap: 100}
"""


def histoproof(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "histoproof", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, stdin=subprocess.DEVNULL)


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_chain_by_hand(tmp_path: Path) -> None:
    """synth, pack, train, evaluate, predict, journal: each with --json, in a folder with a space in its name."""
    folder = tmp_path / "my work"
    folder.mkdir()
    (folder / "c.yaml").write_text(CONFIG.replace("STORE", "store"))
    made = histoproof("data", "synth", "d", "--train", 128, "--valid", 64, "--test", 0, "--json", cwd=folder)
    assert (made.returncode, set(as_json(made)["splits"])) == (0, {"train", "valid"})
    packed = histoproof("data", "pack", "d", "--out", "store", "--json", cwd=folder)
    assert (packed.returncode, as_json(packed)["splits"]["train"]["n"]) == (0, 128)
    trained = histoproof("train", "c.yaml", "--set", "seed=5", "--out", "run", "--json", cwd=folder)
    assert (trained.returncode, as_json(trained)["epochs"]) == (0, 1)
    assert trained.stderr.count("\n") <= 1  # a warning at most: no bar, no log, without a terminal
    scored = histoproof("evaluate", "run", "--json", cwd=folder)
    assert (scored.returncode, as_json(scored)["n"]) == (0, 64)
    predicted = histoproof("predict", "run", "d", "--json", cwd=folder)
    assert (predicted.returncode, len(as_json(predicted))) == (0, 192)
    journal = histoproof("journal", "run", "--out", "j", "--json", cwd=folder)
    assert (journal.returncode, Path(as_json(journal)["journal"])) == (0, Path("j/journal.html"))
    again = histoproof("journal", "run", "--out", "j", "--check", "--json", cwd=folder)
    assert (again.returncode, as_json(again)) == (0, {"ok": True, "problems": []})
    for arguments in (("data", "pack", "d", "--out", "store2"), ("evaluate", "run"), ("predict", "run", "d")):
        done = histoproof(*arguments, cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['histoproof', '--help']\n"
        "from histoproof.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'h5py', 'matplotlib', 'pydantic', 'rich', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["tran"], ["data", "pak"], ["train", "--sett", "a=b"], ["train"], ["evaluate", "run", "--split", "train"]],
)
def test_a_typo_is_answered_with_what_is_valid(arguments: list[str]) -> None:
    done = histoproof(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert any(word in done.stderr for word in ("Did you mean", "Possible options", "give either", "is not one of"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "pack", "absent", "--out", "s"],
        ["train", "absent.yaml"],
        ["train", "--resume", "absent"],
        ["evaluate", "absent"],
        ["predict", "absent", "x.png"],
        ["journal", "absent", "--out", "j"],
        ["data", "synth", "d", "--train", "-1"],
    ],
)
def test_what_is_missing_is_said_in_words_and_as_json(arguments: list[str], tmp_path: Path) -> None:
    done = histoproof(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    with_json = histoproof(*arguments, "--json", cwd=tmp_path)
    assert with_json.returncode == 2
    assert set(as_json(with_json)["error"]) == {"problem", "valid", "next"}
    assert list(tmp_path.iterdir()) == []


def test_quarantine_makes_pack_exit_with_1(tmp_path: Path, write_split: Callable[..., None]) -> None:
    x = np.random.Generator(np.random.Philox(1)).integers(0, 256, (4, 96, 96, 3)).astype(np.float32)
    x[2, 0, 0, 0] = np.nan
    write_split(tmp_path / "d", "train", x, [0, 1, 0, 1])
    done = histoproof("data", "pack", tmp_path / "d", "--out", tmp_path / "s")
    assert done.returncode == 1
    assert "1 in quarantine" in done.stdout
    assert "found: 1 nan" in done.stdout


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, store: Path) -> None:
    import signal
    import time

    (tmp_path / "c.yaml").write_text(CONFIG.replace("STORE", str(store)).replace("epochs: 1", "epochs: 2000"))
    command = [sys.executable, "-m", "histoproof", "train", "c.yaml", "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(read_lines(tmp_path / "run" / "trail.jsonl")) < 10:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "histoproof train --resume run" in out
    assert "Traceback" not in err
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


def test_version() -> None:
    from histoproof import __version__

    assert histoproof("--version").stdout.strip() == __version__


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m histoproof --help | head -c 1", shell=True, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
