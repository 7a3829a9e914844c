"""A real browser opens the journal from disk and shows all of it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoproof.demo import demo

from .conftest import lacking

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "the demo"
    demo(folder)
    return folder / "journal" / "journal.html"


def chromium(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        lacking("no chromium on this machine")
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    offline = ("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}")
    command = [program, *quiet, *offline, "--enable-logging=stderr", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_browser_builds_the_whole_page_without_an_error(made: Path, tmp_path: Path) -> None:
    done = chromium(made, tmp_path / "profile", "--dump-dom")
    assert done.returncode == 0
    dom = done.stdout
    assert dom.count("<svg") == 4
    for words in ("What was run", "Data", "Configuration", "Training", "Scores", "The sealed test split", "Evidence"):
        assert words in dom
    assert not re.findall(r"CONSOLE.*(?:rror|ailed)", done.stderr)


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_is_drawn_and_nothing_is_cut_off_on_the_right(made: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    done = chromium(
        made, tmp_path / "profile", f"--window-size={width},6000", f"--screenshot={shot}", "--hide-scrollbars"
    )
    assert done.returncode == 0
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.int64)
    rows_with_ink = (pixels < 200).any(axis=1)
    assert rows_with_ink.sum() > 1000
    assert np.flatnonzero(rows_with_ink).max() > 2000  # down to the figures and the last tables
    assert (pixels[:, -3:] > 200).all()  # the margin is free: nothing runs out of the page
