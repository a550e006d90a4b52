"""`quickstudy data`: build the starter data, import one's own, add to it, take what arrives, list, check and remove."""

import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.sources import NOTHING, How, reads_source
from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import write_json
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.config import Settings
    from quickstudy.data.dataset import Dataset, DatasetInfo, Reading
    from quickstudy.kinds.findings import Finding
    from quickstudy.system.terminal import Console

ROOT = Path("data")
CACHE = Path(".cache/checks")
NOUNS = {"image": "images", "audio": "recordings", "text": "texts"}

app = typer.Typer(
    help="Build, import, extend, list, check and remove datasets.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog="Datasets lie in data/NAME, one Parquet file and one dataset.yaml each. `quickstudy run` versions them.",
)


class SplitName(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class ScopeName(StrEnum):
    dataset = "dataset"
    group = "group"


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; all where none is named.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build also what is there.")] = False,
) -> None:
    """Build the starter data: glyphs, digits, words, apidocs and phrasebook. Nothing is downloaded."""
    _settings()
    from quickstudy.starter import build_starter
    from quickstudy.system.progress import showing_progress

    with showing_progress() as progress:
        built = build_starter(ROOT, names=names or None, force=force, progress=progress)
    print(f"Built {', '.join(built)}." if built else "All of it is there. --force builds it again.")
    if built:
        print("Next: `quickstudy data list` shows what there is, `quickstudy run` trains on it.")


@app.command("import")
@reads_source()
def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A folder, a .zip, or a .csv, .tsv, .jsonl, .json or .parquet file."),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="What the dataset is to be called; --dry-run needs none."),
    ] = None,
    how: How = NOTHING,
    split: Annotated[
        SplitName | None, typer.Option(help="Put the whole dataset on one side; [b]test[/b] keeps it out of training.")
    ] = None,
    scope: Annotated[
        ScopeName, typer.Option(help="Whether the classes of an episode come from all the dataset or from one group.")
    ] = ScopeName.dataset,
    licence: Annotated[str, typer.Option(help="The licence of the data, for the model card.")] = "unknown",
    source_note: Annotated[
        str | None, typer.Option("--source-note", metavar="TEXT", help="Where it comes from, for the model card.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read, and what left out; change nothing.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a dataset of that name.")] = False,
) -> None:
    """Bring your own data. The source is read and stays as it is; a wrong source changes nothing.

    [b]Files in folders[/b] (or in a .zip): CLASS/file, or GROUP/CLASS/file

    [cyan]quickstudy data import photos/ -n parts --modality image[/cyan]

    [b]Flat files[/b] whose names say it all, such as 7_anna_03.wav

    [cyan]quickstudy data import rec/ -n rec --pattern '{class}_{who}_{}' --domain who[/cyan]

    [b]Tables[/b]: CSV, TSV, JSON Lines, JSON, Parquet; a folder of them is joined

    [cyan]quickstudy data import tickets.csv -n tickets --text body --label queue[/cyan]

    [b]Several tags an example[/b]: lists, or a;b in one cell, or a column of 0 and 1 for each

    [cyan]quickstudy data import mails.csv -n mails --kind tag --label topics --separator ';'[/cyan]

    [b]What would be read[/b], without reading it in

    [cyan]quickstudy data import tickets.csv --dry-run[/cyan]

    [b]Hugging Face layout[/b]: a .parquet file, or a folder of them

    [cyan]quickstudy data import beans/data -n beans --split test[/cyan]
    """
    settings = _settings()
    from quickstudy.data.dataset import Dataset, check_name
    from quickstudy.ingest.additions import create
    from quickstudy.ingest.importers.source import import_source
    from quickstudy.system.limits import bounded
    from quickstudy.system.locks import locked
    from quickstudy.system.progress import showing_progress

    if name is None and not dry_run:
        fix = "Say it by --name, or look first by --dry-run"
        raise QuickstudyError("the dataset has no name", where="data import", fix=fix)
    name = _likely_name(source) if name is None else check_name(name)
    options = how.options(
        split=None if split is None else split.value,
        scope=scope.value,
        licence=licence,
        source_note=source_note,
    )
    notes: list[str] = []
    if dry_run:
        with showing_progress() as progress, bounded(settings.watch.memory, source):
            info, table = import_source(
                source, name, options, progress=lambda done, total: progress("reading", done, total), note=notes.append
            )
        print(f"Would import {_outline(Dataset(info, table), NOUNS[info.modality])}.")
        _print_summary(Dataset(info, table), settings, notes)
        print("Nothing was written: that was --dry-run.")
        return
    with locked(ROOT), showing_progress() as progress, bounded(settings.watch.memory, source):
        if (ROOT / name).exists() and not replace:
            fix = "Choose another --name, replace it by --replace, or add to it: quickstudy data add"
            raise QuickstudyError("there is a dataset of this name", where=ROOT / name, fix=fix)
        info, table = import_source(
            source, name, options, progress=lambda done, total: progress("reading", done, total), note=notes.append
        )
        dataset = Dataset(info, table)
        findings = create(
            ROOT,
            info,
            table,
            settings,
            _split_of(settings),
            cache=CACHE,
            refuse=False,
            progress=progress,
            note=notes.append,
        )

    print(f"Imported {_outline(dataset, NOUNS[info.modality])}.")
    _print_summary(dataset, settings, notes)
    _print_findings(findings)
    if any(finding.severity == "fatal" for finding in findings):
        print(f"`quickstudy run` refuses it so. Mend the above, then: quickstudy data check {name}")
    elif info.kind not in settings.kinds:
        print(f"Next: add `{info.kind}: {{}}` under kinds in params.yaml, then `quickstudy run` trains on it too.")
    else:
        print("Next: `quickstudy run` trains and evaluates with it.")


@app.command()
@reads_source(without=("kind", "modality", "exclude_label", "drop_duplicates"))
def add(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A folder, a .zip, or a .csv, .tsv, .jsonl, .json or .parquet file."),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="The dataset that it has more examples of.")],
    how: How = NOTHING,
) -> None:
    """Add examples to a dataset that was imported; they are read as that was.

    Columns, groups, pattern and excluded classes stand in data/NAME/dataset.yaml; the options are for what differs.
    What is there already is left out, so that adding a file twice does nothing. What would be fatal to the data
    (quickstudy data check) is refused, and a wrong source changes nothing. Old examples keep their places and their
    side of the meta-split; the new ones follow.

    [cyan]quickstudy data add tickets-today.csv --name tickets[/cyan]

    [cyan]quickstudy data add photos-today/ --name parts[/cyan]   [dim]CLASS/file or GROUP/CLASS/file, as before[/dim]

    [dim]Where data arrives by itself: quickstudy data take[/dim]
    """
    settings = _settings()
    from quickstudy.ingest.additions import commit, prepare
    from quickstudy.system.limits import bounded
    from quickstudy.system.locks import locked
    from quickstudy.system.progress import showing_progress

    folder = _existing(name)
    differs = how.reading()
    notes: list[str] = []
    with locked(ROOT), showing_progress() as progress, bounded(settings.watch.memory, source):
        addition = prepare(ROOT, name, source, differs, cache=CACHE, progress=progress, note=notes.append)
        findings = commit(
            ROOT, addition, settings, _split_of(settings), cache=CACHE, progress=progress, note=notes.append
        )
    count, noun = len(addition.new), NOUNS[addition.new.modality]
    for line in notes:
        print(f"Note: {line}")
    if not count:
        print(f"Nothing new: {name} has all {addition.repetitions:,} of these examples. Nothing was written.")
        return
    there = f"; {addition.repetitions:,} were there already" if addition.repetitions else ""
    print(f"Added {count:,} to {name}, which has {count + len(addition.before.digests):,} {noun} now{there}.")
    _print_findings(findings)
    if any(finding.severity == "fatal" for finding in findings):
        print(f"`quickstudy run` refuses {folder} as it is, as it did before. Mend the above")
    else:
        print("Next: `quickstudy run` records a new data version and trains on it.")


@app.command()
def take(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what became of each delivery as JSON too.")
    ] = None,
) -> None:
    """Take what has arrived in inbox/NAME/ into the dataset NAME.

    A delivery is a file in inbox/NAME/ (.csv, .jsonl, .parquet, .zip …), or a folder of images or recordings
    (CLASS/file or GROUP/CLASS/file). It is read as by [b]data add[/b], and where there is no dataset NAME yet as by
    [b]data import[/b]. One that is still being written waits; one that cannot be taken is moved to
    inbox/.rejected/NAME/ with the reason beside it; a taken one is moved to inbox/.taken/NAME/.

    Deliver into another folder of the same disk, or under a name that ends in .part, and rename: then none is ever
    seen half. watch.quiet in params.yaml says for how many seconds a delivery must not change.

    [cyan]cp tickets-today.csv inbox/tickets/ && quickstudy data take[/cyan]

    Exit code 0 whatever became of the deliveries; --json says it.
    """
    settings = _settings()
    if os.environ.get(SUPERVISED) is None:
        _supervise([*(["--json", str(json_file)] if json_file else [])], settings.watch.minutes * 60)
        return
    from quickstudy.ingest.inbox import take
    from quickstudy.system.progress import showing_progress

    with showing_progress() as progress:
        outcomes = take(ROOT, settings, _split_of(settings), cache=CACHE, progress=progress)
    if json_file is not None:
        from dataclasses import asdict

        write_json(json_file, [asdict(one) for one in outcomes])
    for one in outcomes:
        if one.outcome == "taken":
            more = f". {one.reason[0].upper()}{one.reason[1:]}" if one.reason else ""
            told = f"taken: {one.examples:,} new examples, {one.repetitions:,} repetitions{more}"
        elif one.outcome == "rejected":
            told = f"set aside: {one.reason}"
        else:
            told = f"waits: {one.reason}"
        print(f"{one.dataset}/{one.delivery} {told}" if one.dataset else f"{one.delivery} {told}")
    if not outcomes:
        print(f"Nothing lies in {settings.watch.inbox}/.")


SUPERVISED = "QUICKSTUDY_SUPERVISED"
"""The variable by which `data take` knows that it is the process that reads, and another looks after it."""

UNTOLD = {signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS}
"""Signals that end a process which has no memory left, or that a file has led astray."""


def _supervise(options: list[str], seconds: float) -> None:
    """Call `data take` in a process of its own, and end it where one delivery takes too long; after each end that no
    process can tell of, once more: what it was reading is then not read for ever (`quickstudy.ingest.journal`)."""
    import subprocess
    import sys
    import threading
    import time

    from quickstudy.ingest.journal import at_work
    from quickstudy.system.processes import die_with_parent

    command = [sys.executable, "-m", "quickstudy", "data", "take", *options]
    while True:
        process = subprocess.Popen(
            command,
            env={**os.environ, SUPERVISED: "1"},
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=die_with_parent,
        )
        said: list[str] = []
        assert process.stdout is not None
        listener = threading.Thread(target=said.extend, args=(process.stdout,), daemon=True)
        listener.start()
        known: list[str] = []
        since = time.monotonic()
        try:
            while process.poll() is None:
                now = at_work(Path.cwd(), process.pid)
                known, since = (known, since) if now == known else (now, time.monotonic())
                if now and time.monotonic() - since > seconds:
                    process.kill()
                time.sleep(0.1)
        except BaseException:
            process.kill()
            process.wait()
            raise
        listener.join(timeout=5)
        if -process.returncode in UNTOLD and at_work(Path.cwd(), process.pid):
            continue
        print("".join(said), end="", flush=True)
        if code := process.returncode:
            raise typer.Exit(code if code > 0 else 128 - code)
        return


@app.command("list")
def list_() -> None:
    """Show the datasets: size, groups, how the groups are split, licence."""
    settings = _settings()
    from rich.table import Table
    from rich.text import Text

    from quickstudy.data.dataset import PLACES, dataset_names, read_dataset
    from quickstudy.kinds.targets import PLAIN, targets_of

    names = dataset_names(ROOT)
    if not names:
        print("There are no datasets yet. `quickstudy data build` makes some, `quickstudy data import` reads yours.")
        return
    console = _console()
    wide = console.width >= 110
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("name", "modality"):
        table.add_column(head, no_wrap=True)
    for head in ("examples", "classes", "groups", "domains", "tr/va/te"):
        table.add_column(head, justify="right", no_wrap=True)
    if wide:
        table.add_column("licence", overflow="ellipsis", no_wrap=True, max_width=40)
    for name in names:
        try:
            dataset = read_dataset(ROOT / name, PLACES)
            info, targets = dataset.info, targets_of(dataset.info.kind)
        except QuickstudyError as error:
            table.add_row(name, Text(error.what[:60], style="red"))
            continue
        domains = len(set(dataset.column("domain"))) if info.domain else 0
        cells = [
            name,
            info.modality if info.kind == PLAIN else f"{info.modality}, {info.kind}",
            f"{len(dataset):,}",
            f"{len(targets.names(dataset)):,}",
            f"{len(set(dataset.column('group'))):,} {info.group}",
            f"{domains} {info.domain}" if info.domain else "–",
            "/".join(map(str, _side_counts(dataset, settings).values())),
        ]
        table.add_row(*cells, *([info.licence] if wide else []))
    console.print(table)
    legend = "tr/va/te: groups in meta-train, meta-validation and meta-test"
    console.print(legend if wide else f"{legend}. Licences show in a wider window", style="dim")


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only what concerns this dataset.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON too.")
    ] = None,
) -> None:
    """Look for what is wrong with the data.

    Small classes, duplicates, examples under two labels, unreadable items, examples on both sides of the meta-split.
    Exit code 2 where something is fatal, which `quickstudy run` refuses; else 0.
    """
    settings = _settings()
    from quickstudy.data.dataset import dataset_names
    from quickstudy.ingest.checks import check_datasets
    from quickstudy.system.progress import showing_progress

    names = dataset_names(ROOT)
    if name is not None:
        _existing(name)
    if not names:
        raise QuickstudyError(
            "there are no datasets", where=ROOT, fix="Make some by `quickstudy data build` or `data import`"
        )
    datasets, damaged = _read_all(None if name is None else _modality(name))
    if damaged:
        raise damaged[0]
    with showing_progress() as progress:
        findings = check_datasets(
            datasets,
            settings,
            _split_of(settings),
            cache=CACHE,
            only=name,
            progress=lambda of, done, total: progress(f"checking {of}", done, total),
        )
    if json_file is not None:
        from dataclasses import asdict

        write_json(json_file, [asdict(finding) for finding in findings])
    _print_findings(findings)
    fatal = sum(finding.severity == "fatal" for finding in findings)
    what = name or f"{len(names)} datasets"
    print(f"Checked {what}: {fatal} fatal, {len(findings) - fatal} to know of.")
    if fatal:
        raise typer.Exit(2)


class FormatName(StrEnum):
    label_studio = "label-studio"
    jsonl = "jsonl"
    csv = "csv"
    imagefolder = "imagefolder"


@app.command()
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The dataset.")],
    form: Annotated[FormatName, typer.Option("--format", "-f", help="What it is to be written as.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A file for texts, a folder for others; else one called as the dataset."),
    ] = None,
) -> None:
    """Write a dataset as other tools read it: with its labels, groups and domains.

    Of images and recordings a folder is written, with the files as they came in. [b]imagefolder[/b] is CLASS/file, and
    where classes cannot be folders a table that names the files, as Hugging Face has it.

    [cyan]quickstudy data export tickets --format label-studio[/cyan]

    [cyan]quickstudy data export parts --format imagefolder --out parts/[/cyan]
    """
    folder = _existing(name)
    from quickstudy.data.dataset import PLACES, read_dataset
    from quickstudy.ingest.exporters import export as write
    from quickstudy.system.progress import showing_progress

    dataset = read_dataset(folder, PLACES)
    with showing_progress() as progress:
        done = write(dataset, form.value, out, lambda some, total: progress("writing", some, total))
    print(f"Exported {done.examples:,} {NOUNS[dataset.modality]} of {name} → {done.path}")
    print(f"Read it again by: quickstudy data import {done.path} --name OTHER {done.again}".rstrip())


@app.command()
def accept(name: Annotated[str, typer.Argument(metavar="NAME", help="The dataset.")]) -> None:
    """Say that the examples of a dataset were changed by hand, and are meant to be as they are now."""
    from quickstudy.data.dataset import read_dataset
    from quickstudy.data.written import remember_written

    folder = _existing(name)
    examples = len(read_dataset(folder))
    remember_written(folder)
    print(f"{folder} is taken as it is now: {examples:,} examples. The next `quickstudy run` records a data version.")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The dataset.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a dataset from data/. Versions that DVC has recorded stay in its cache."""
    import shutil
    import sys
    import tempfile

    folder = _existing(name)
    if not yes:
        if not sys.stdin.isatty():
            raise QuickstudyError("nobody is there to ask", where=f"data remove {name}", fix="Confirm by --yes")
        if not typer.confirm(f"Remove {folder}? What is in no recorded data version is gone for good."):
            print("Nothing was removed.")
            return
    # Out of data/ in one step; then a kill can leave litter, but no half dataset.
    away = Path(tempfile.mkdtemp(prefix=f".{name}-removed-", dir=ROOT.parent))
    os.replace(folder, away / name)
    shutil.rmtree(away)
    print(f"Removed {folder}. The next `quickstudy run` records a data version without it.")
    print("DVC keeps the versions recorded before: `git checkout COMMIT data.dvc` and `dvc checkout` bring one back.")


def _settings() -> "Settings":
    from quickstudy.config import load_settings

    return load_settings()


def _existing(name: str) -> Path:
    from quickstudy.data.dataset import dataset_names

    names = dataset_names(ROOT)
    if name not in names:
        there = f"There are {', '.join(names)}" if names else "There are none yet: `quickstudy data build` makes some"
        raise QuickstudyError(f"no dataset {name!r}", where=ROOT, fix=there)
    return ROOT / name


def _read_all(modality: str | None = None) -> tuple[list["Dataset"], list[QuickstudyError]]:
    """The datasets of a modality, and what is wrong with those that cannot be read."""
    from quickstudy.data.contents import MEMORY
    from quickstudy.data.dataset import PLACES, dataset_names, read_dataset
    from quickstudy.kinds.targets import targets_of

    datasets, damaged = [], []
    for name in dataset_names(ROOT):
        try:
            dataset = read_dataset(ROOT / name, PLACES, MEMORY)
            targets_of(dataset.info.kind, ROOT / name)
            if modality in (None, dataset.modality):
                datasets.append(dataset)
        except QuickstudyError as error:
            damaged.append(error)
    return datasets, damaged


def _modality(name: str) -> str:
    from quickstudy.data.dataset import read_dataset

    return read_dataset(ROOT / name, ["group"]).modality


def _split_of(settings: "Settings"):
    def side(info: "DatasetInfo", group: str):
        from quickstudy.tasks.splits import meta_split

        return meta_split(info, group, settings.splits)

    return side


def _side_counts(dataset: "Dataset", settings: "Settings") -> dict[str, int]:
    """How many groups are on each side of the meta-split."""
    split_of = _split_of(settings)
    counts = {"train": 0, "validation": 0, "test": 0}
    for group in set(dataset.column("group")):
        counts[split_of(dataset.info, group)] += 1
    return counts


def _outline(dataset: "Dataset", noun: str) -> str:
    from quickstudy.kinds.targets import targets_of

    info: DatasetInfo = dataset.info
    targets = targets_of(info.kind)
    line = f"{info.name}: {len(dataset):,} {noun}, {len(targets.names(dataset)):,} {targets.WORD}"
    groups = set(dataset.column("group"))
    if info.group == "class":
        line += ", each its own group"
    elif len(groups) > 1:
        line += f" in {len(groups):,} groups (by {info.group})"
    if info.domain is not None:
        line += f", {len(set(dataset.column('domain'))):,} domains (by {info.domain})"
    return line


SHOWN = 20
"""Classes that are listed; of more, the largest and the smallest."""


def _print_summary(dataset: "Dataset", settings: "Settings", notes: list[str]) -> None:
    """Say what was read as what, its classes with their counts, and what was decided or left out."""
    import numpy as np

    from quickstudy.kinds.targets import targets_of

    info: DatasetInfo = dataset.info
    targets, reading = targets_of(info.kind), info.reading
    parts = []
    if reading is not None:
        named = {"the examples": reading.content, targets.WORD: reading.label, "groups": reading.group}
        named |= {"domains": reading.domain}
        parts = [
            f"{what} from {_place(name, reading)}"
            for what, name in named.items()
            if name not in (None, "class", "none")
        ]
        if reading.label_columns:
            parts.append(f"{targets.WORD} from {len(reading.label_columns)} columns of 0 and 1")
        if reading.content is None and reading.label is None and not reading.label_columns:
            parts.insert(0, f"{targets.WORD} from the names of {'files' if reading.pattern else 'folders'}")
    if parts:
        print(f"Read: {', '.join(parts)}.")
    counts = targets.count(targets.of(dataset, np.arange(len(dataset))))
    print(f"{targets.WORD.capitalize()}: {_counted(counts)}.")
    print(_sides(dataset, settings))
    for line in notes:
        print(f"Note: {line}")


def _place(name: str | None, reading: "Reading") -> str:
    """A column, a field of the pattern or a folder level; columns without names have numbers."""
    if name is None or not name.isdecimal():
        return repr(name)
    return f"folder level {name}" if reading.content is None else f"column {name}"


def _counted(counts: dict[str, int]) -> str:
    by_size = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    if len(by_size) > SHOWN:
        half = SHOWN // 2
        return f"{_list(by_size[:half])}, … and {len(by_size) - SHOWN:,} more, …, {_list(by_size[-half:])}"
    return _list(by_size)


def _list(counts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{_printable(name)} {count:,}" for name, count in counts)


def _printable(name: str) -> str:
    """A name in one line, without what steers a terminal."""
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _likely_name(source: Path) -> str:
    import re

    return re.sub(r"[^a-z0-9_-]+", "-", source.stem.lower()).strip("-_")[:64] or "dataset"


def _sides(dataset: "Dataset", settings: "Settings") -> str:
    counts = _side_counts(dataset, settings)
    if isinstance(dataset.info.meta_split, str):
        return f"Meta-split: all of it is meta-{dataset.info.meta_split}."
    return f"Meta-split of the {sum(counts.values())} groups: {', '.join(f'{n} {side}' for side, n in counts.items())}."


def _print_findings(findings: list["Finding"]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not findings:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        colour = "red" if finding.severity == "fatal" else "yellow"
        told = Text.assemble(f"{finding.dataset}: {finding.what}. ", (finding.fix, "dim"))
        table.add_row(Text(finding.severity, style=colour), told)
    _console().print(table)


def _console() -> "Console":
    """Where there is no terminal, lines are not cut at the 80 columns that it would have."""
    import sys

    from quickstudy.system.terminal import Console

    return Console(width=None if sys.stdout.isatty() else 160)
