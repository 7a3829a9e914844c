"""Shared data: a small synthetic dataset and its store, made once; the real patches where they are; a disk that can fill up."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import pytest
from hypothesis import settings

from histoproof.data.pack import pack
from histoproof.data.pcam import SplitName, official_name
from histoproof.data.synth import synth

REPOSITORY = Path(__file__).parents[1]

# A shell that starts the tests in the background has SIGINT ignored; what they start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Same tests, same cases: property tests draw the same examples every time. HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def lacking(reason: str) -> NoReturn:
    """Skip a test for want of data, rights or a program; with HISTOPROOF_NO_SKIPS, as in .ci/run, that is a failure."""
    if os.environ.get("HISTOPROOF_NO_SKIPS"):
        pytest.fail(f"nothing may be skipped here, but: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official files of 256 + 96 + 64 synthetic patches."""
    folder = tmp_path_factory.mktemp("synth") / "official"
    synth(folder, train=256, valid=96, test=64, seed=7)
    return folder


@pytest.fixture(scope="session")
def store(official: Path) -> Path:
    """Their store."""
    folder = official.parent / "store"
    pack(official, folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds pcam-real and pcam-test-ten."""
    folder = Path(os.environ.get("HISTOPROOF_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "pcam-real").is_dir():
        lacking(f"no real patches in {folder}: set HISTOPROOF_REAL_DATA to the folder that holds pcam-real")
    return folder


@pytest.fixture(scope="session")
def real_store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real patches, packed."""
    folder = tmp_path_factory.mktemp("real") / "store"
    pack(real_data / "pcam-real", folder)
    return folder


@pytest.fixture
def write_split() -> Callable[..., None]:
    """Write one split's official files from arrays."""

    def write(folder: Path, split: SplitName, x: Any, y: Any = None, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / official_name(split, "x.h5"), "w") as file:
            file.create_dataset("x", data=x, **options)
        if y is not None:
            with h5py.File(folder / official_name(split, "y.h5"), "w") as file:
                file.create_dataset("y", data=np.asarray(y).reshape(-1, 1, 1, 1))

    return write


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small file system with options such as "size=1m" or "ro"; needs root, skipped with the reason otherwise."""
    folder = tmp_path / "mount"
    folder.mkdir()
    made = False

    def mount(options: str) -> Path:
        nonlocal made
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            lacking(f"cannot mount a small file system here (needs root): {done.stderr.strip()}")
        made = True
        return folder

    yield mount
    if made:
        subprocess.run(["umount", "-l", str(folder)], check=True)
