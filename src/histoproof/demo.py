"""The whole chain on synthetic patches, from `synth` to `journal`, each step a public function."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from . import bench
from .config import shipped_config
from .data.audit import audit, write_audit
from .data.pack import pack
from .data.store import open_store
from .data.synth import synth
from .errors import OutputError, RunError, writing
from .evaluate import evaluate
from .journal import journal
from .predict import predict
from .slices import slices
from .train import train
from .twin import twin

__all__ = ["demo"]

_TRAIN, _VALID, _TEST = 1536, 384, 384


def demo(out: Path, *, lang: Literal["en", "nl"] = "en", say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run the chain in a new folder `out`; `say` gets a line a step. Returns {"journal", "audit", "run", "store", "best", ...}.

    Raises OutputError if `out` exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists already", next=f"give another --out, or remove {out}")
    official, audited, store, run = (out / name for name in ("official", "audit", "store", "run"))
    say(f"1/10 {_TRAIN + _VALID + _TEST} synthetic patches in the official files: {official}")
    synth(official, train=_TRAIN, valid=_VALID, test=_TEST)
    say(f"2/10 audit them: {audited}")
    write_audit(audit(official), audited)
    say(f"3/10 pack them into a store: {store}")
    packed = pack(official, store)
    say(f"4/10 train a small CNN: {run}")
    trained = train(shipped_config("demo"), [f"data.store={store}"], out=run)
    if trained["status"] == "stopped":
        raise RunError("the demo was stopped while training", next=f"go on with `histoproof train --resume {run}`")
    say(f"5/10 train it again, and compare the two bit by bit: {run}-twin")
    compared = twin(run)
    say("6/10 evaluate it on valid")
    scores = evaluate(run)
    say("7/10 where does it fail? slices of valid")
    slices(run, gallery=6)
    images = _some_images(store, out / "images")
    say(f"8/10 predict on images: {images}")
    predictions = predict(run, [images])
    measured = out / "bench"
    say(f"9/10 how fast are the patches read? {measured}")
    bench.loader(store, batch_sizes=[64], devices=["cpu"], precisions=["fp32"], quick=True, out=measured)
    say(f"10/10 write the journal: {out / 'journal'}")
    written = journal([audited, run, Path(compared["twin"]), measured], out / "journal", lang=lang)
    return {
        "journal": written["journal"],
        "audit": str(audited),
        "run": str(run),
        "store": packed["store"],
        "best": trained["best"],
        "twin": {key: compared[key] for key in ("twin", "identical")},
        "auc": scores["metrics"]["auc"],
        "predictions": predictions,
    }


def _some_images(store: Path, folder: Path) -> Path:
    """The first ten valid patches as PNG files, for `predict`; the test split stays sealed."""
    with writing(folder):
        folder.mkdir(parents=True)
        for row, pixels in enumerate(open_store(store).split("valid").images[:10]):
            Image.fromarray(pixels).save(folder / f"valid-{row:02d}.png")
    return folder
