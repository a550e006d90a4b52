"""`quickstudy data`: build the starter data, import one's own, add to it, take what arrives, list, check and remove."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import write_json

if TYPE_CHECKING:
    from rich.console import Console

    from quickstudy.config import Settings
    from quickstudy.data.dataset import Dataset, DatasetInfo
    from quickstudy.kinds.findings import Finding

ROOT = Path("data")
CACHE = Path(".cache/checks")
NOUNS = {"image": "images", "audio": "recordings", "text": "texts"}

app = typer.Typer(
    help="Build, import, extend, list, check and remove datasets.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog="Datasets lie in data/NAME, one Parquet file and one dataset.yaml each. `quickstudy run` versions them.",
)


class ModalityName(StrEnum):
    image = "image"
    audio = "audio"
    text = "text"


class SplitName(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class ScopeName(StrEnum):
    dataset = "dataset"
    group = "group"


SeparatorOption = Annotated[
    str | None,
    typer.Option(
        "--separator", metavar="TEXT", help="What is between the tags of one cell, e.g. ';' in 'late;refund'."
    ),
]
LabelColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--label-columns",
        metavar="COLUMNS",
        help="Columns of 0 and 1, one a tag: late,refund or 'is_*', or '*' for all that hold nothing else.",
    ),
]


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
def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A folder, a .zip, or a .csv, .tsv, .jsonl, .json or .parquet file."),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="What the dataset is to be called.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="What is learned: [b]classify[/b] (one class each) or [b]tag[/b] (several, or none). Told from the "
            "source where it is left out: a column of lists is tags.",
        ),
    ] = None,
    modality: Annotated[
        ModalityName | None, typer.Option("--modality", "-m", help="Told from the files where it is left out.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of the class, or tags. Usual names are found: label, intent, tags …"
        ),
    ] = None,
    separator: SeparatorOption = None,
    label_columns: LabelColumnsOption = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text", "--content", metavar="COLUMN", help="Column of the examples. Usual names are found: text …"
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP",
            help="What never crosses the meta-split: a COLUMN, a {field} of --pattern, a folder level (0 is the top), "
            "a FILE.json that maps groups to classes, [b]class[/b] (each is its own) or [b]none[/b].",
        ),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN", help="Who spoke, drew, took it: a COLUMN, a {field} of --pattern or a folder level."
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="How file names are made, e.g. '{class}_{speaker}_{}'; {x:8} has 8 characters."
        ),
    ] = None,
    exclude_label: Annotated[
        list[str] | None,
        typer.Option("--exclude-label", metavar="CLASS", help="Leave a class or tag out; may be repeated."),
    ] = None,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="Cat and cat are one class. What differs in blanks alone always is.")
    ] = False,
    file: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Of a table beside images or recordings: the column that names them."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the names in a .zip, as gbk; told from them if left out."),
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of the folder.")
    ] = False,
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
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable files and rows, and say so.")
    ] = False,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Leave out repetitions, and what stands under two labels.")
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

    [b]Hugging Face layout[/b]: a .parquet file, or a folder of them

    [cyan]quickstudy data import beans/data -n beans --split test[/cyan]
    """
    settings = _settings()
    from quickstudy.data.dataset import Dataset
    from quickstudy.ingest.additions import create
    from quickstudy.ingest.importers.options import ImportOptions
    from quickstudy.ingest.importers.source import check_name, import_source
    from quickstudy.system.locks import locked
    from quickstudy.system.progress import showing_progress

    check_name(name)
    options = ImportOptions(
        kind=kind,
        modality=None if modality is None else modality.value,
        content=text,
        label=label,
        separator=separator,
        label_columns=_names(label_columns),
        group=group,
        domain=domain,
        pattern=pattern,
        split=None if split is None else split.value,
        scope=scope.value,
        exclude=tuple(exclude_label or ()),
        ignore_case=ignore_case,
        file=file,
        encoding=encoding,
        follow_links=follow_links,
        skip_bad=skip_bad,
        drop_duplicates=drop_duplicates,
        licence=licence,
        source_note=source_note,
    )
    notes: list[str] = []
    with locked(ROOT), showing_progress() as progress:
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
    print(_sides(dataset, settings))
    for line in notes:
        print(f"Note: {line}")
    _print_findings(findings)
    if any(finding.severity == "fatal" for finding in findings):
        print(f"`quickstudy run` refuses it so. Mend the above, then: quickstudy data check {name}")
    elif info.kind not in settings.kinds:
        print(f"Next: add `{info.kind}: {{}}` under kinds in params.yaml, then `quickstudy run` trains on it too.")
    else:
        print("Next: `quickstudy run` trains and evaluates with it.")


@app.command()
def add(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A folder, a .zip, or a .csv, .tsv, .jsonl, .json or .parquet file."),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="The dataset that it has more examples of.")],
    text: Annotated[
        str | None, typer.Option("--text", "--content", metavar="COLUMN", help="Column of the examples, if another.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the class, or tags, if it has another name.")
    ] = None,
    separator: SeparatorOption = None,
    label_columns: LabelColumnsOption = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="What says the group, if another; a FILE.json for new classes."),
    ] = None,
    domain: Annotated[str | None, typer.Option(metavar="DOMAIN", help="What says the domain, if another.")] = None,
    pattern: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="How file names are made, if otherwise.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable files and rows, and say so.")
    ] = False,
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
    from quickstudy.data.dataset import Reading
    from quickstudy.ingest.additions import commit, prepare
    from quickstudy.system.locks import locked
    from quickstudy.system.progress import showing_progress

    folder = _existing(name)
    differs = Reading(
        content=text,
        label=label,
        separator=separator,
        label_columns=_names(label_columns),
        group=group,
        domain=domain,
        pattern=pattern,
        skip_bad=skip_bad,
    )
    notes: list[str] = []
    with locked(ROOT), showing_progress() as progress:
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
    from quickstudy.ingest.inbox import take
    from quickstudy.system.progress import showing_progress

    with showing_progress() as progress:
        outcomes = take(ROOT, settings, _split_of(settings), cache=CACHE, progress=progress)
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
    if json_file is not None:
        from dataclasses import asdict

        write_json(json_file, [asdict(one) for one in outcomes])


@app.command("list")
def list_() -> None:
    """Show the datasets: size, groups, how the groups are split, licence."""
    settings = _settings()
    from rich.markup import escape
    from rich.table import Table

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
            table.add_row(name, f"[red]{escape(error.what[:60])}[/red]")
            continue
        domains = len(set(dataset.column("domain"))) if info.domain else 0
        cells = [
            name,
            info.modality if info.kind == PLAIN else f"{info.modality}, {info.kind}",
            f"{len(dataset):,}",
            f"{len(targets.names(dataset)):,}",
            f"{len(set(dataset.column('group'))):,} {escape(info.group)}",
            f"{domains} {escape(info.domain)}" if info.domain else "–",
            "/".join(map(str, _side_counts(dataset, settings).values())),
        ]
        table.add_row(*cells, *([escape(info.licence)] if wide else []))
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


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The dataset.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a dataset from data/. Versions that DVC has recorded stay in its cache."""
    import os
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


def _names(columns: str | None) -> tuple[str, ...] | None:
    return None if columns is None else tuple(name.strip() for name in columns.split(",") if name.strip())


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


def _sides(dataset: "Dataset", settings: "Settings") -> str:
    counts = _side_counts(dataset, settings)
    if isinstance(dataset.info.meta_split, str):
        return f"Meta-split: all of it is meta-{dataset.info.meta_split}."
    return f"Meta-split of the {sum(counts.values())} groups: {', '.join(f'{n} {side}' for side, n in counts.items())}."


def _print_findings(findings: list["Finding"]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not findings:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        colour = "red" if finding.severity == "fatal" else "yellow"
        told = f"{escape(finding.dataset)}: {escape(finding.what)}. [dim]{escape(finding.fix)}[/dim]"
        table.add_row(f"[{colour}]{finding.severity}[/{colour}]", told)
    _console().print(table)


def _console() -> "Console":
    """Where there is no terminal, lines are not cut at the 80 columns that it would have."""
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)
