"""The command line: parse, call the function of the same name, print. Imports happen inside handlers, so --help is fast."""

import io
import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer._click.exceptions import ClickException

from . import __version__
from .errors import HistoproofError, OutputError
from .progress import bar

__all__ = ["app", "main"]

_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(
    **_SETTINGS,
    help="A PatchCamelyon pipeline whose every number can be proven. "
    "Exit codes: 0 done; 1 done, and it found something wrong; 2 it could not run.",
)
data = typer.Typer(**_SETTINGS, help="Official files, synthetic look-alikes, and the store they are packed into.")
app.add_typer(data, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the config; repeatable.")
]
Tta = Annotated[
    bool | None, typer.Option("--tta/--no-tta", help="Average over the 8 rotations and flips; default: the config's.")
]


def main() -> NoReturn:
    """The program `histoproof`: runs the command line and exits with 0, 1 or 2 (130 after Ctrl-C)."""
    signal.signal(signal.SIGTERM, _ended)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="histoproof", standalone_mode=False) or 0
        if sys.stdout is not None:  # None: closed before we began
            sys.stdout.flush()
        sys.exit(code)
    except HistoproofError as e:
        _fail(e)
    except ClickException as e:
        e.show()
        if "--json" in sys.argv:
            _print_error(e.format_message(), None, "see --help")
        sys.exit(2)
    except typer.Abort:  # Ctrl-C; training itself stops at a checkpoint and says so
        _to_stderr("stopped; nothing half-written is left, and the same command can be given again")
        if "--json" in sys.argv:
            _print_error("stopped by Ctrl-C", None, "the same command can be given again")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except UnicodeError as e:
        _fail(OutputError(f"a path or a text that cannot be written as UTF-8: {e}", valid="names in UTF-8"))
    except OSError as e:
        _fail(OutputError(f"{e.filename or 'the output'}: {e.strerror or e}"))


def _ended(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM outside training: leave through every `finally`, so that nothing half-written stays."""
    sys.exit(128 + number)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)  # noqa: T201
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
    lang: Annotated[Literal["en", "nl"], typer.Option(help="Language of the journal.")] = "en",
    as_json: Json = False,
) -> None:
    """The whole chain on synthetic patches; ends with the journal's path."""
    from .demo import demo as run_demo

    result = run_demo(out, lang=lang, say=_to_stderr)
    _emit(result, as_json, [f"journal: {result['journal']}"])


@data.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    train: Annotated[int, typer.Option(help="Patches in train.")] = 4096,
    valid: Annotated[int, typer.Option(help="Patches in valid.")] = 768,
    test: Annotated[int, typer.Option(help="Patches in test.")] = 768,
    seed: Annotated[int, typer.Option(help="Another seed, other patches.")] = 42,
    dtype: Annotated[Literal["uint8", "float32"], typer.Option(help="Type of the pixels on disk.")] = "uint8",
    compression: Annotated[Literal["gzip", "none"], typer.Option(help="Chunked and compressed, or neither.")] = "gzip",
    as_json: Json = False,
) -> None:
    """Write a learnable PatchCamelyon look-alike in the official files."""
    from .data.synth import synth

    with bar("patches") as progress:
        result = synth(
            out, train=train, valid=valid, test=test, seed=seed, dtype=dtype, compression=compression, progress=progress
        )
    counts = (f"{name}: {s['n']} patches, {s['positive']} positive" for name, s in result["splits"].items())
    _emit(result, as_json, [f"dataset: {result['out']}", *counts])


@data.command("fetch")
def data_fetch(
    out: Annotated[Path, typer.Argument(help="Folder to fetch into, new or not.", show_default=False)],
    source: Annotated[
        str | None, typer.Option(metavar="URL", help="Folder of a mirror; default: Zenodo.", show_default=False)
    ] = None,
    splits: Annotated[str, typer.Option(help="Which splits, a comma between.")] = "train,valid,test",
    as_json: Json = False,
) -> None:
    """Fetch the official files, checksums enforced. What came before a cut or Ctrl-C is kept: the same command goes on."""
    from .data.fetch import fetch
    from .data.officials import ZENODO

    names = [name.strip() for name in splits.split(",") if name.strip()]
    try:
        with bar("fetching", in_bytes=True) as progress:
            result = fetch(out, source=ZENODO if source is None else source, splits=names, progress=progress)
    except KeyboardInterrupt:
        _to_stderr(f"stopped; what has come is kept in {out}: the same command goes on from there")
        raise
    _emit(result, as_json, [f"dataset: {result['out']}", *(f"{f['name']}: {f['status']}" for f in result["files"])])


@data.command("audit")
def data_audit(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Official files, or a store.", show_default=False)],
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="CSV:COLUMN",
            help="What must not cross splits; {split} in CSV stands for the split's name. Default: the slides (wsi) in meta.",
            show_default=False,
        ),
    ] = None,
    near: Annotated[bool, typer.Option("--near", help="Look for near-duplicates as well.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Rank suspicious labels as well.")] = False,
    checksums: Annotated[
        bool | None,
        typer.Option(
            "--checksums/--no-checksums", help="Every checksum, or none; default: those that may tell something."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make: audit.json, findings.jsonl.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Which files these are, what is wrong with the patches, what leaks, where the bytes go. Exits with 1 on errors."""
    from .data.audit import audit, write_audit
    from .data.audit_report import audit_words
    from .files import check_new

    if out is not None:
        check_new(out, what="audit")
    with bar("patches") as progress:
        result = audit(source, groups=groups, near=near, suspects=labels, checksums=checksums, progress=progress)
    if out is not None:
        write_audit(result, out)
    lines = audit_words(result, str(out) if out else None)
    _emit(result, as_json, lines, code=1 if result["errors"] else 0)


@data.command("pack")
def data_pack(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the official files.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Store to make.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Pack official files into a store. Exits with 1 if patches had to go into quarantine."""
    from .data.pack import pack

    with bar("patches") as progress:
        result = pack(source, out, progress=progress)
    lines = [f"store: {result['store']}"]
    for name, split in result["splits"].items():
        labels = f"{split['positive']} positive" if split["positive"] is not None else "no labels"
        lines.append(f"{name}: {split['n']} patches ({split['dtype']}), {labels}, {split['quarantined']} in quarantine")
    if result["findings"]:
        lines.append("found: " + ", ".join(f"{n} {kind}" for kind, n in result["findings"].items()))
        lines.append(f"each one: {out / 'findings.jsonl'}")
    _emit(result, as_json, lines, code=1 if result["errors"] else 0)


@data.command("split")
def data_split(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Store to split.", show_default=False)],
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|CSV:COLUMN",
            help="What no two parts may share, e.g. the slide: a column of the store's meta.csv or of a CSV with one row a "
            "patch; {split} in its path stands for train, valid. Default: wsi where the store knows it.",
            show_default=False,
        ),
    ] = None,
    fractions: Annotated[
        str | None, typer.Option(metavar="train=0.8,valid=0.2", help="Parts; a test may be among them.")
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="Or K folds for cross-validation.")] = None,
    name: Annotated[str | None, typer.Option(help="Name; default: fractions, or folds-K.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another partition.")] = 42,
    pooled: Annotated[
        str, typer.Option("--from", metavar="SPLIT,...", help="Splits to deal anew; never test.", show_default=False)
    ] = "",
    as_json: Json = False,
) -> None:
    """Deal a store's train and valid anew, into parts or folds that no group and no copy crosses."""
    from .data.split import split as split_store

    result = split_store(
        store,
        groups=groups,
        fractions=None if fractions is None else _fractions(fractions),
        folds=folds,
        name=name,
        seed=seed,
        pooled=pooled.split(",") if pooled else None,
    )
    for warning in result["warnings"]:
        typer.secho(warning, fg="red", err=True)
    copies, by = result["copies"], result["groups"]
    kept = f"{by['n']} groups" + (f" ({by['column']})" if by["column"] else " (patches)")
    lines = [
        f"partition: {result['name']} in {store}, from {' and '.join(result['from'])}, {kept}",
        f"copies kept together: {copies['pairs']} pairs, {copies['groups_joined']} groups joined with others",
    ]
    for part, count in result["parts"].items():
        share = count["positive"] / count["n"]
        label = f"fold {part}" if result["kind"] == "folds" else part
        lines.append(
            f"{label}: {count['n']} patches ({count['fraction']:.1%}), {count['positive']} positive ({share:.1%}), "
            f"{count['groups']} groups"
        )
    fold = " --set data.fold=0" if result["kind"] == "folds" else ""
    chosen = f"--set data.store={shlex.quote(str(store))} --set data.partition={result['name']}"
    lines.append(f"train on it: histoproof train CONFIG {chosen}{fold}")
    _emit(result, as_json, lines)


def _fractions(text: str) -> dict[str, float]:
    """train=0.8,valid=0.2 as a dict."""
    found: dict[str, float] = {}
    for part in text.split(","):
        role, _, value = part.partition("=")
        try:
            fraction = float(value)
        except ValueError:
            raise typer.BadParameter(
                f"{part!r} in --fractions is not PART=FRACTION; valid: train=0.8,valid=0.2"
            ) from None
        if role.strip() in found:
            raise typer.BadParameter(f"--fractions names {role.strip()} twice")
        found[role.strip()] = fraction
    return found


@data.command("poison")
def data_poison(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the official files.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    spec: Annotated[Path, typer.Option(help="What to plant, YAML; see docs/poison.md.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write a copy with planted faults, and truth.csv, which says what was planted where."""
    from .data.poison import poison

    with bar("patches") as progress:
        result = poison(source, out, spec, progress=progress)
    planted = ", ".join(f"{n} {kind}" for kind, n in result["planted"].items()) or "nothing"
    lines = [f"poisoned copy: {result['out']}", f"planted: {planted}", *result["notes"], f"truth: {result['truth']}"]
    _emit(result, as_json, lines)


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="The experiment, YAML.", show_default=False)] = None,
    sets: Sets = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to make; default runs/NAME-001, ...", show_default=False)
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an unfinished run.", show_default=False)
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Train each seed in turn, into OUT-seedN, ...", show_default=False),
    ] = None,
    track: Annotated[
        Literal["mlflow", "tensorboard"] | None,
        typer.Option(help="Copy the run there while it trains.", show_default=False),
    ] = None,
    track_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="Where to; default: as in `track`.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Train what CONFIG says, or go on with --resume RUN."""
    from . import train as training

    if (config is None) == (resume is None):
        raise typer.BadParameter("give either CONFIG or --resume RUN")
    if resume is not None and (sets or out or seeds):
        raise typer.BadParameter(
            "--resume goes on with the run as it is: --set, --out and --seeds make no sense with it"
        )
    live = _live(track, track_uri)
    watch = live.watch if live else None
    if seeds is not None:
        assert config is not None
        _train_seeds(config, seeds, sets or [], out, as_json, live)
        return
    with bar("training") as progress:
        if resume is not None:
            result = training.resume(resume, progress=progress, watch=watch)
        else:
            assert config is not None
            result = training.train(config, sets or (), out=out, progress=progress, watch=watch)
    result |= _tracked(live)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0":
        return  # under torchrun one process speaks for all
    if result["status"] == "stopped":
        _emit(result, as_json, [_stopped(result)], code=130 if result["signal"] == "SIGINT" else 0)
        return
    for warning in result["warnings"]:
        typer.secho(warning, fg="red", bold=True, err=True)
    best = result["best"]
    auc = best["intervals"]["auc"]
    lines = [
        f"run: {result['run']}",
        f"best epoch {best['epoch']} of {result['epochs']}: valid AUC {_interval(auc)}",
        f"weights_sha256 {result['weights_sha256']}",
        f"trail_sha256   {result['trail_sha256']}",
        *(f"tracked: {report['uri']}: {report['id']}" for report in result.get("tracking", ()) if report["ok"]),
    ]
    _emit(result, as_json, lines)


def _live(to: Literal["mlflow", "tensorboard"] | None, uri: str | None) -> Any:
    """The tracking beside training; None where none is asked for."""
    if to is None:
        if uri is not None:
            raise typer.BadParameter("--track-uri needs --track mlflow or --track tensorboard")
        return None
    from .track.live import Live
    from .track.mlflow import without_password

    if uri is not None and without_password(uri) != uri:
        raise typer.BadParameter(
            "--track-uri holds a password, and a run writes its command down: set MLFLOW_TRACKING_URI instead"
        )
    return Live(to, uri)


def _tracked(live: Any) -> dict[str, Any]:
    """What became of the tracking, for the result; what went wrong is said in red."""
    if live is None:
        return {}
    for report in live.reports:
        if report["warning"]:
            typer.secho(report["warning"], fg="red", err=True)
    return {"tracking": live.reports}


def _train_seeds(config: Path, text: str, sets: list[str], out: Path | None, as_json: bool, live: Any) -> None:
    from .seeds import train_seeds

    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise typer.BadParameter(f"--seeds {text}: give whole numbers with commas between, e.g. 42,43,44")
    if any(one.replace(" ", "").startswith("seed=") for one in sets):
        raise typer.BadParameter("--seeds and --set seed=... contradict each other: give one of them")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise typer.BadParameter("--seeds trains in turn; under torchrun start one training a seed, with --set seed=N")
    with bar("training") as progress:
        chosen = [int(part) for part in text.split(",")]
        watch = live.watch if live else None
        result = train_seeds(config, chosen, sets, out=out, progress=progress, watch=watch)
    result |= _tracked(live)
    lines = [f"seed {row['seed']}: {row['run']}: {row['was']}" for row in result["runs"]]
    for name, s in result["scores"].items():
        interval = f"95 % t interval {s['low']:.4f} to {s['high']:.4f}" if s["low"] is not None else s["why"]
        sd = "" if s["sd"] is None else f", sd {s['sd']:.4f}"
        mean = "" if s["mean"] is None else f"mean {s['mean']:.4f}{sd}, n = {s['n']}, "
        lines.append(f"valid {name}: {mean}{interval}")
    if result["status"] == "stopped":
        lines.append(f"stopped by {result['signal']} at step {result['steps']} of {result['run']}, checkpoint written")
        lines.append("go on with the same command" if out else f"go on with: histoproof train --resume {result['run']}")
    _emit(result, as_json, lines, code=130 if result.get("signal") == "SIGINT" else 0)


@app.command("runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to look, at any depth.")] = Path("runs"),
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Keep runs for which it holds; also != < <= > >=; repeatable."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="KEY", help="Order by a key; -KEY: falling.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs under DIR, with their scores; seeds of one config together. KEY: a config key, a valid score, a field."""
    from .runs import runs
    from .runs.table import shown

    result = runs(folder, where=where or (), sort=sort)
    terminal = sys.stdout.isatty() and not as_json
    width = os.get_terminal_size(sys.stdout.fileno()).columns if terminal else 120
    _emit(result, as_json, [shown(result, terminal=terminal, width=width or 120)])


@app.command()
def diff(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run folder.", show_default=False)],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Where two runs part, and why. Exits with 1 if they are not identical."""
    from .diff import diff as compare

    result = compare(run_a, run_b)
    _emit(result, as_json, result["words"], code=0 if result["identical"] else 1)


@app.command()
def twin(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Run folder to make; default RUN-twin.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Train a run again from its own config, and compare. Exits with 1 if the twin is not identical."""
    from .twin import twin as train_twin

    with bar("training") as progress:
        result = train_twin(run, out=out, progress=progress)
    _emit(result, as_json, [f"twin: {result['twin']}", *result["words"]], code=0 if result["identical"] else 1)


@app.command()
def dose(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The study, YAML.", show_default=False)],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with the official files.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to make, or to go on with.", show_default=False)],
    keep: Annotated[bool, typer.Option("--keep", help="Keep poisoned copies, stores and all checkpoints.")] = False,
    as_json: Json = False,
) -> None:
    """Valid AUC against the rate of each poison, with and without quarantine. Goes on where it was stopped."""
    from .dose import dose as run_study

    with bar("training") as progress:
        result = run_study(spec, data, out, keep=keep, say=_to_stderr, progress=progress)
    if result["status"] == "stopped":
        line = f"stopped with {result['done']} of {result['cells']} cells done; go on with the same command"
        _emit(result, as_json, [line], code=130)
        return
    lines = [row["words"] for row in result["differences"]]
    _emit(result, as_json, [*lines, f"study: {out / 'dose.json'}"])


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="The experiment that is varied, YAML.", show_default=False)],
    space: Annotated[Path, typer.Option(help="What varies, YAML; see docs/search.md.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Finished trials in all, whoever makes them.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="STUDY", help="Study to make, or to join.", show_default=False)],
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Search a space of config keys. The same command in several processes shares the work, and goes on after a kill."""
    from .search import search as run_search
    from .search import words

    with bar("training") as progress:
        result = run_search(config, space, trials, out, sets or (), say=_to_stderr, progress=progress)
    code = 130 if result["status"] == "stopped" else 1 if result["problems"] else 0
    _emit(result, as_json, words(result), code=code)


@app.command()
def spikes(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)], as_json: Json = False
) -> None:
    """Spikes of the gradient norm, the patches behind them, and whether faulty patches cause them."""
    from .spikes import spikes as find

    result = find(run)
    lines = [f"{len(result['spikes'])} spikes in {result['steps']} steps"]
    for spike in result["spikes"]:
        faults = ", ".join(f"{index} ({'+'.join(kinds)})" for index, kinds in spike["faulty"].items()) or "none"
        norm = "not finite" if spike["grad_norm"] is None else f"{spike['grad_norm']:.4g}"
        lines.append(
            f"step {spike['step']} (epoch {spike['epoch']}): norm {norm}; faulty patches in the batch: {faults}"
        )
    found = result["enrichment"]
    if found["p_value"] is None:
        lines.append(f"no test of enrichment: {found['why']}")
    else:
        means = f"{found['per_spike']:.2f} faulty patches a spike, {found['per_other']:.2f} a step elsewhere"
        lines.append(f"{means}; as many or more by chance: p = {found['p_value']:.4f}")
    _emit(result, as_json, lines)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, or a frozen champion.", show_default=False)],
    split: Annotated[Literal["valid", "test"], typer.Option(help="Which split to score.")] = "valid",
    store: Annotated[Path | None, typer.Option(help="Store, if not the config's.", show_default=False)] = None,
    tta: Tta = None,
    open_test: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Open the sealed test split; written into the ledger.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a run's best checkpoint, or a frozen champion, on a split, every score with its interval."""
    from .evaluate import evaluate as score_run

    result = score_run(run, split=split, store=store, tta=tta, open_test=open_test)
    for warning in result["warnings"]:
        typer.secho(warning, fg="red", err=True)
    groups = (
        f"over {result['groups']['count']} groups ({result['groups']['column']})"
        if result["groups"]
        else "over patches"
    )
    frozen = f" (frozen), temperature {result['temperature']:g}" if result["champion_sha256"] else ""
    head = (
        f"{split}: n = {result['n']}, threshold {result['threshold']:g}{frozen}, 95 % intervals bootstrapped {groups}"
    )
    _emit(result, as_json, [head, *(f"{name:18} {_interval(v)}" for name, v in result["metrics"].items())])


@app.command()
def champion(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study, or any folder with finished runs.", show_default=False)
    ],
    seeds: Annotated[int, typer.Option(help="New seeds to retrain the winner with, 3 or more.")] = 3,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC", help="Choose by f2, f1, auc, ...; default: evaluate.primary.", show_default=False
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="Threshold: f2 (default), recall>=0.95, cost=5:1, ...", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make, or to go on with; default STUDY/champion.", show_default=False)
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Store, if not the configs'.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Freeze the best run of a study: retrained, calibrated, with a threshold, compared with baselines. Goes on if stopped."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise typer.BadParameter("champion trains in turn: start it without torchrun")
    from .champion import champion as freeze
    from .champion.words import champion_words

    with bar("champion") as progress:
        result = freeze(study, seeds=seeds, by=by, rule=rule, out=out, store=store, say=_to_stderr, progress=progress)
    if result["status"] == "stopped":
        line = f"stopped by {result['signal']} in {result['run']}, checkpoint written; go on with the same command"
        _emit(result, as_json, [line], code=130 if result["signal"] == "SIGINT" else 0)
        return
    for warning in result["warnings"]:
        typer.secho(warning, fg="red", bold=True, err=True)
    _emit(result, as_json, champion_words(result, study / "champion" if out is None else out))


@app.command()
def ledger(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store.", show_default=False)],
    witnesses: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR...]", help="Folders of runs and champions to be asked as well.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Who opened the test split, when, with what, why. Exits with 1 if the ledger does not hold."""
    from .ledger import in_words
    from .ledger import ledger as read_ledger

    result = read_ledger(store, witnesses or ())
    _emit(result, as_json, in_words(result), code=0 if result["ok"] else 1)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Run folder, or a frozen champion.", show_default=False)],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, folders, HDF5 files.", show_default=False)
    ],
    tta: Tta = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Default: the config's, or the champion's.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """The probability of tumour for each patch."""
    from .predict import predict as predict_paths

    result = predict_paths(model, paths, tta=tta, threshold=threshold)
    lines = [
        f"{row['tumor_probability']:.4f}  {'tumour' if row['label'] else 'normal'}  {row['path']}"
        + ("" if row["index"] is None else f" [{row['index']}]")
        for row in result
    ]
    _emit(result, as_json, lines)


@app.command()
def slices(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    split: Annotated[Literal["valid", "test"], typer.Option(help="Which split's predictions.")] = "valid",
    groups: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN|CSV:COLUMN",
            help="Cut by this column, too: of the store's meta.csv, or of a CSV with one row a patch; {split} in its path stands "
            "for the split. Repeatable.",
        ),
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|CSV:COLUMN",
            help="What intervals and tests are over, e.g. the slide; default: the config's evaluate.groups.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: RUN/slices.", show_default=False)] = None,
    store: Annotated[Path | None, typer.Option(help="Store, if not the config's.", show_default=False)] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Default: the config's.", show_default=False)
    ] = None,
    least: Annotated[int, typer.Option(min=2, help="Fewest patches of a slice, and of its rest.")] = 20,
    gallery: Annotated[int, typer.Option(min=0, help="Patches in each gallery of errors.")] = 12,
    saliency: Annotated[
        bool, typer.Option("--saliency", help="Load the model, and see where it looks: is it the centre?")
    ] = False,
    bound: Annotated[float, typer.Option(help="How many times as frequent, or as rare, a slice may become.")] = 2.0,
    open_test: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Open the sealed test split; written into the ledger.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Where a run fails: slices of its predictions against their rest, galleries of errors, what accuracy alone would miss."""
    from .slices import slices as cut

    with bar("patches") as progress:
        result = cut(
            run,
            split=split,
            groups=groups or (),
            units=units,
            out=out,
            store=store,
            threshold=threshold,
            least=least,
            gallery=gallery,
            saliency=saliency,
            bound=bound,
            open_test=open_test,
            progress=progress,
        )
    _emit(result, as_json, [*result["words"], f"slices: {Path(result['out']) / 'slices.json'}"])


@app.command()
def drift(
    model: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Images, folders, HDF5 files, or STORE/valid.", show_default=False),
    ],
    store: Annotated[
        Path | None, typer.Option(help="The store the run was trained on, if not the config's.", show_default=False)
    ] = None,
    alpha: Annotated[float, typer.Option(help="Level of the corrected p-values.")] = 0.01,
    effect: Annotated[float, typer.Option(help="Least Kolmogorov-Smirnov distance that is called drift.")] = 0.15,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make: drift.json and a figure.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Do new patches look like the training set, and if not, in what? Exits with 1 if they have drifted."""
    from .drift import drift as compare

    result = compare(model, paths, store=store, alpha=alpha, effect=effect, out=out)
    for warning in result["warnings"]:
        typer.secho(warning, fg="red", err=True)
    _emit(result, as_json, result["words"], code=1 if result["drift"] else 0)


@app.command()
def journal(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Folders of runs, audits and studies.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    lang: Annotated[Literal["en", "nl"], typer.Option(help="Language.")] = "en",
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: is the journal in --out what the evidence says now?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the journal from the evidence on disk. With --check, exits with 1 where journal and evidence differ."""
    from .journal import check as check_journal
    from .journal import journal as write_journal

    if check:
        result = check_journal(paths, out)
        lines = ["the journal is what the evidence says"] if result["ok"] else result["problems"]
        _emit(result, as_json, lines, code=0 if result["ok"] else 1)
        return
    result = write_journal(paths, out, lang=lang)
    for problem in result["problems"]:
        typer.secho(f"the evidence contradicts itself: {problem}", fg="red", bold=True, err=True)
    _emit(result, as_json, [f"journal: {result['journal']}"], code=1 if result["problems"] else 0)


@app.command()
def track(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)],
    to: Annotated[Literal["mlflow", "tensorboard"], typer.Option(help="The tracker.", show_default=False)],
    uri: Annotated[
        str | None,
        typer.Option(
            help="A server or database of MLflow (default: $MLFLOW_TRACKING_URI, else mlflow.db beside the first run), "
            "or TensorBoard's log folder (default: tensorboard beside the first run).",
            show_default=False,
        ),
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow's experiment; made if it is not there.")] = "histoproof",
    as_json: Json = False,
) -> None:
    """Copy runs to MLflow or TensorBoard: what is not there yet is added. Exits with 1 if a run is too damaged to be copied."""
    from .track import track as copy

    result = copy(runs, to=to, uri=uri, experiment=experiment, say=_to_stderr)
    for problem in result["problems"]:
        typer.secho(f"{problem['run']}: {problem['problem']}", fg="red", err=True)
    lines = [f"{to}: {result['uri']}", *(f"{run['run']}: {run['id']}" for run in result["runs"])]
    lines.append(f"look at it with: {result['look']}")
    _emit(result, as_json, lines, code=1 if result["problems"] else 0)


bench = typer.Typer(
    **_SETTINGS, help="How fast: throughput, the bottleneck, memory, ceilings; and why it was slower yesterday."
)
app.add_typer(bench, name="bench")
Batches = Annotated[str, typer.Option("--batch-sizes", metavar="N,N,...", help="Patches a batch.")]
Devices = Annotated[
    str,
    typer.Option("--devices", metavar="cpu,cuda|auto", help="One that is not there is said to be so; auto: what is."),
]
Precisions = Annotated[str, typer.Option("--precisions", metavar="P,P,...", help="Of fp32, bf16, fp16.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few and short samples: does it run, and in what order of size.")]
Samples = Annotated[int | None, typer.Option("--samples", help="Of each stage; default 12.", show_default=False)]
BenchOut = Annotated[
    Path | None, typer.Option("--out", help="Folder to make; default bench/NAME-001, ...", show_default=False)
]


@bench.command("loader")
def bench_loader(
    store: Annotated[Path, typer.Option(help="A store.", show_default=False)],
    split: Annotated[Literal["train", "valid"], typer.Option(help="Which split.")] = "train",
    batch_sizes: Batches = "1,4,8,16,64,256",
    devices: Devices = "cpu,cuda",
    precisions: Precisions = "fp32,bf16",
    config: Annotated[
        Path | None, typer.Option(help="Standardise and augment as it says; default: neither.", show_default=False)
    ] = None,
    sets: Sets = None,
    quick: Quick = False,
    samples: Samples = None,
    out: BenchOut = None,
    as_json: Json = False,
) -> None:
    """From the store to tensors that a model takes."""
    from .bench import loader

    asked = {"batch_sizes": batch_sizes.split(","), "devices": devices.split(","), "precisions": precisions.split(",")}
    with bar("loader") as progress:
        result = loader(
            store,
            split=split,
            config=config,
            sets=sets or (),
            quick=quick,
            samples=samples,
            out=out,
            progress=progress,
            **asked,
        )
    _emit_bench(result, as_json)


@bench.command("train")
def bench_train(
    config: Annotated[Path, typer.Argument(help="The experiment, YAML.", show_default=False)],
    sets: Sets = None,
    batch_sizes: Batches = "1,4,8,16,64,256",
    devices: Devices = "cpu,cuda",
    precisions: Precisions = "fp32,bf16",
    models: Annotated[
        str | None, typer.Option(metavar="M,M,...", help="E.g. mlp,cnn; default: the config's.", show_default=False)
    ] = None,
    quick: Quick = False,
    samples: Samples = None,
    out: BenchOut = None,
    as_json: Json = False,
) -> None:
    """Reading, transfer and arithmetic of a training, each alone and end to end; and what logging and the rest cost."""
    from .bench import train as measure

    asked = {"batch_sizes": batch_sizes.split(","), "devices": devices.split(","), "precisions": precisions.split(",")}
    names = models.split(",") if models is not None else ()
    with bar("train") as progress:
        result = measure(
            config, sets or (), models=names, quick=quick, samples=samples, out=out, progress=progress, **asked
        )
    _emit_bench(result, as_json)


@bench.command("infer")
def bench_infer(
    model: Annotated[Path, typer.Argument(help="Run folder, or a frozen champion.", show_default=False)],
    store: Annotated[Path | None, typer.Option(help="Store, if not the config's.", show_default=False)] = None,
    batch_sizes: Batches = "1,4,8,16,64,256",
    devices: Devices = "cpu,cuda",
    precisions: Precisions = "fp32,bf16",
    quick: Quick = False,
    samples: Samples = None,
    out: BenchOut = None,
    as_json: Json = False,
) -> None:
    """A trained model at work, plain and averaged over the 8 rotations and flips."""
    from .bench import infer

    asked = {"batch_sizes": batch_sizes.split(","), "devices": devices.split(","), "precisions": precisions.split(",")}
    with bar("infer") as progress:
        result = infer(model, store=store, quick=quick, samples=samples, out=out, progress=progress, **asked)
    _emit_bench(result, as_json)


@bench.command("audit")
def bench_audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Official files, or a store.", show_default=False)],
    checksums: Annotated[
        bool | None, typer.Option("--checksums/--no-checksums", help="As in `data audit`.", show_default=False)
    ] = None,
    quick: Quick = False,
    samples: Annotated[int | None, typer.Option("--samples", help="Default 6.", show_default=False)] = None,
    out: BenchOut = None,
    as_json: Json = False,
) -> None:
    """The audit beside a plain read of the same files."""
    from .bench import audit

    with bar("audit") as progress:
        result = audit(folder, checksums=checksums, quick=quick, samples=samples, out=out, progress=progress)
    _emit_bench(result, as_json)


@bench.command("compare")
def bench_compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A result of bench.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another.", show_default=False)],
    as_json: Json = False,
) -> None:
    """What changed from A to B beyond chance, and the likeliest cause."""
    from .bench import compare, compare_words

    result = compare(a, b)
    _emit(result, as_json, compare_words(result))


def _emit_bench(result: dict[str, Any], as_json: bool) -> None:
    from .bench import words

    code = 128 + signal.Signals[result["stopped"]] if result["stopped"] else 0
    _emit(result, as_json, words(result), code=code)


def _stopped(result: dict[str, Any]) -> str:
    return (
        f"stopped by {result['signal']} at step {result['steps']}, checkpoint written; "
        f"go on with: histoproof train --resume {result['run']}"
    )


def _interval(interval: dict[str, Any]) -> str:
    if interval["value"] is None:
        return f"undefined: {interval['why']}"
    if interval["low"] is None:
        return f"{interval['value']:.4f} (no interval: {interval['why']})"
    return f"{interval['value']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"


def _emit(result: Any, as_json: bool, lines: list[str], *, code: int = 0) -> None:
    """Print a command's result for a machine or for people, and exit with its code."""
    from .files import readable

    try:
        print(readable(result) if as_json else "\n".join(lines), flush=True)  # noqa: T201
    except BrokenPipeError:  # the reader has seen enough; typer would exit with 1, which says that something was found
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code:
        raise typer.Exit(code)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def _fail(error: HistoproofError) -> NoReturn:
    typer.secho(f"error: {error}", fg="red" if sys.stderr.isatty() else None, err=True)
    if "--json" in sys.argv:
        _print_error(error.problem, error.valid, error.next)
    sys.exit(2)


def _print_error(problem: str, valid: str | None, advice: str | None) -> None:
    from .files import readable

    print(readable({"error": {"problem": problem, "valid": valid, "next": advice}}))  # noqa: T201
