"""A real browser opens the journal from disk and shows all of it, to everybody."""

import html
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from histoproof.demo import demo
from histoproof.journal import journal

from .conftest import lacking

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "the demo"
    demo(folder)
    return folder / "journal" / "journal.html"


@pytest.fixture(scope="module")
def dutch(made: Path) -> Path:
    folder = made.parents[1]
    journal([folder / "audit", folder / "run", folder / "run-twin"], folder / "logboek", lang="nl")
    return folder / "logboek" / "journal.html"


def chromium(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        lacking("no chromium on this machine")
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    offline = ("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}")
    command = [program, *quiet, *offline, "--enable-logging=stderr", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def asked(page: Path, tmp_path: Path, width: int, script: str, *, dark: bool = False) -> Any:
    """What `script`, a JavaScript expression or promise, gives inside the page, which is shown `width` pixels wide."""
    end = "<script>addEventListener('load', async () => parent.told(await (" + script + ")))</script></body>"
    inner = html.escape(page.read_text().replace("</body>", end), quote=True)
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<!doctype html><title>outer</title><script>function told(x) { const p = document.createElement('pre');"
        "p.id = 'told'; p.textContent = JSON.stringify(x); document.body.append(p); }</script>"
        f"<iframe title='page' style='border: 0' width={width} height=900 srcdoc=\"{inner}\"></iframe>"
    )
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = chromium(
        outer, tmp_path / "profile", *scheme, "--window-size=1600,1000", "--virtual-time-budget=120000", "--dump-dom"
    )
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, flags=re.S)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1)))


def test_the_browser_builds_the_whole_page_without_an_error(made: Path, tmp_path: Path) -> None:
    done = chromium(made, tmp_path / "profile", "--dump-dom")
    assert done.returncode == 0
    dom = done.stdout
    assert dom.count("<svg") >= 4
    assert len(re.findall(r'<h2 id="c[1-9]"', dom)) == 9
    assert not re.findall(r"CONSOLE.*(?:rror|ailed)", done.stderr)


def test_no_request_leaves_the_file_and_every_image_loads(made: Path, tmp_path: Path) -> None:
    script = """(() => ({
        requests: performance.getEntriesByType('resource').map(e => e.name),
        broken: [...document.images].filter(i => !i.naturalWidth).length,
        inside: [...document.querySelectorAll('svg image')].filter(i => !i.href.baseVal.startsWith('data:')).length,
        empty: [...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().height < 50).length,
    }))()"""
    assert asked(made, tmp_path, 1100, script) == {"requests": [], "broken": 0, "inside": 0, "empty": 0}


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_nothing_has_to_be_scrolled_sideways(made: Path, dutch: Path, tmp_path: Path, width: int) -> None:
    for page in (made, dutch):
        seen = asked(page, tmp_path, width, "[innerWidth, document.documentElement.scrollWidth]")
        assert seen[0] == width
        assert seen[1] <= width


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (360, False)])
def test_axe_finds_no_violation(made: Path, tmp_path: Path, width: int, dark: bool) -> None:
    axe = (
        resources.files("axe_core_python")
        .joinpath("axe.min.js")
        .read_text(encoding="utf-8")
        .replace("</script", "<\\/script")
    )
    with_axe = tmp_path / "with-axe.html"
    with_axe.write_text(made.read_text().replace("</head>", f"<script>{axe}</script></head>"))
    run = """axe.run(document).then(r => ({
        scheme: matchMedia('(prefers-color-scheme: dark)').matches, rules: r.passes.length,
        violations: r.violations.map(v => [v.id, v.impact, v.nodes.map(n => n.html.slice(0, 200))])}))"""
    seen = asked(with_axe, tmp_path, width, run, dark=dark)
    assert seen["scheme"] is dark
    assert seen["rules"] > 15
    assert seen["violations"] == []


def test_axe_would_find_a_violation(made: Path, tmp_path: Path) -> None:
    axe = (
        resources.files("axe_core_python")
        .joinpath("axe.min.js")
        .read_text(encoding="utf-8")
        .replace("</script", "<\\/script")
    )
    bad = tmp_path / "bad.html"
    pale = made.read_text().replace("--ink: #20242c", "--ink: #e8e8e8").replace(' lang="en"', "")
    bad.write_text(pale.replace("</head>", f"<script>{axe}</script></head>"))
    found = asked(bad, tmp_path, 1100, "axe.run(document).then(r => r.violations.map(v => v.id))")
    assert {"color-contrast", "html-has-lang"} <= set(found)


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_is_drawn_and_nothing_is_cut_off_on_the_right(made: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    done = chromium(
        made, tmp_path / "profile", f"--window-size={width},8000", f"--screenshot={shot}", "--hide-scrollbars"
    )
    assert done.returncode == 0
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.int64)
    rows_with_ink = (pixels < 200).any(axis=1)
    assert rows_with_ink.sum() > 1000
    assert np.flatnonzero(rows_with_ink).max() > 5000  # down to the figures and the last tables
    assert (pixels[:, -3:] > 200).all()  # the margin is free: nothing runs out of the page


def test_it_prints_to_pdf(made: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "journal.pdf"
    done = chromium(made, tmp_path / "profile", f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert done.returncode == 0
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 9  # a chapter begins a page
