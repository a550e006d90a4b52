"""Use a model: judge it on any data, teach it a task, ask it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.sources import NOTHING, How, reads_source
from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import write_bytes, write_json
from quickstudy.system.environment import CHAMPION
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.adaptation.state import TaskState
    from quickstudy.data.dataset import Dataset
    from quickstudy.model.metamodel import MetaModel

STATES = Path("adapted")
PANEL = "Use the model"

ModelOption = Annotated[
    str,
    typer.Option("--model", metavar="URI", help="models:/quickstudy@ALIAS, models:/quickstudy/VERSION or a folder."),
]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(rich_help_panel=PANEL)(adapt)
    app.command(rich_help_panel=PANEL)(predict)
    app.command(rich_help_panel=PANEL)(evaluate)


@reads_source(without=("group", "domain"))
def adapt(
    support: Annotated[Path, typer.Argument(help="Labelled examples: CLASS/file folders, a .zip, or a table.")],
    task: Annotated[str, typer.Option("--task", "-t", metavar="NAME", help="What the task is to be called.")],
    shots: Annotated[
        int | None, typer.Option("--shots", "-k", min=1, help="Use K examples a class, drawn by the seed; else all.")
    ] = None,
    how: How = NOTHING,
    model: ModelOption = CHAMPION,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Teach the model a task from a handful of labelled examples; a small file holds what it learned.

    [dim]quickstudy adapt photos/ --task defects --shots 5[/dim]
    """

    from quickstudy.adaptation.adapted import learn
    from quickstudy.config import load_settings
    from quickstudy.data.dataset import check_name
    from quickstudy.kinds.targets import targets_of
    from quickstudy.system.environment import find_project

    check_name(task)
    alarm = load_settings(find_project() / "params.yaml").serve.false_alarm
    dataset = _read(support, how)
    rows = _draw(dataset, shots, seed, support)
    loaded, digest = _load(model, dataset.info.kind)
    examples, targets = dataset.raw(rows), targets_of(dataset.info.kind).of(dataset, rows)
    learn(loaded, dataset.modality, examples, targets, "")  # weights and kernels are warm from here on
    names = examples if dataset.modality == "text" else [dataset.path(int(row)) or f"row {row + 1}" for row in rows]
    state = learn(loaded, dataset.modality, examples, targets, digest, names, alarm)
    path = STATES / f"{task}.safetensors"
    write_bytes(path, state.to_bytes())
    low, high = min(state.shots), max(state.shots)
    each = f"{low}" if low == high else f"{low} to {high}"
    word = targets_of(state.kind).WORD
    print(f"Learned {task!r} in {state.adapt_ms:.0f} ms: {len(state.names)} {word}, {each} examples each → {path}")
    print(f"Next: `quickstudy predict --task {task} FILES`")


@reads_source(without=("modality", "group", "domain", "exclude_label", "drop_duplicates"))
def predict(
    queries: Annotated[Path, typer.Argument(help="A file, a folder or a table; a .txt file has a text a line.")],
    task: Annotated[str, typer.Option("--task", "-t", metavar="NAME", help="A task that was adapted.")],
    how: How = NOTHING,
    model: ModelOption = CHAMPION,
    json: JsonOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answer a Parquet file of any size, row by row, into this Parquet file."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="With --out: a column to keep, again for more; else all but the content."),
    ] = None,
) -> None:
    """Ask an adapted task about new examples; says the accuracy too where they carry labels.

    [dim]quickstudy predict new_photos/ --task defects --json answers.json[/dim]

    [dim]quickstudy predict tickets.parquet --task queues --out answers.parquet --keep id[/dim]
    """
    from rich.table import Table
    from rich.text import Text

    from quickstudy.adaptation.table import asker
    from quickstudy.ingest.importers.source import read_queries
    from quickstudy.kinds.scores import SCORES
    from quickstudy.kinds.targets import targets_of
    from quickstudy.system.terminal import Console

    if out is None and keep:
        raise QuickstudyError("--keep is about the columns of --out FILE", fix="Say --out too")
    said_too = how.fields.keys() - {"kind", "content", "label", "skip_bad"}
    if out is not None and said_too:
        option = min(said_too).replace("_", "-")
        about = "the names of files" if option == "pattern" else "files of text"
        raise QuickstudyError(f"--{option} is about {about}, --out about Parquet", fix="Leave one of them out")
    state = _adapted(task)
    kind = how.fields.get("kind", state.kind)
    if kind != state.kind:
        raise QuickstudyError(f"task {task!r} is of kind {state.kind}, not {kind}", fix="Leave --kind out")
    if out is not None:
        content, skip_bad = how.fields.get("content"), bool(how.fields.get("skip_bad"))
        return _predict_table(queries, out, state, task, model, content, keep, skip_bad, json)
    asked = read_queries(queries, how.options(kind=state.kind, modality=state.modality), note=tell)
    said = asker(_loaded_for(state, task, model), state)(asked.contents)
    answers, part = said.targets, targets_of(state.kind)
    # Labels count only where the task knows them: a folder's name may say something else.
    labels = asked.targets if asked.targets is not None and part.are_of(asked.targets, state.names) else None
    unknown = [not known for known in said.known]
    verdict = any(unknown)
    table = Table("example", "answer", "probability", *(["verdict"] if verdict else []), *(["label"] if labels else []))
    for i in range(min(len(answers), 20)):
        name = asked.contents[i][:60] if state.modality == "text" else asked.paths[i]
        extra = [Text("unknown" if unknown[i] else "")] if verdict else []
        extra += [] if labels is None else [Text(part.shown(labels[i]), style="" if labels[i] == answers[i] else "red")]
        table.add_row(Text(name), Text(part.shown(answers[i])), f"{said.confidence[i]:.2f}", *extra)
    result = _about(state, task, model)
    agreed = ""
    if labels is not None:
        score, half = SCORES[state.kind].agreement(answers, labels)
        result |= _scored(result["metric"], score) | {"ci95": half if len(labels) > 1 else None}
        spread = f" ± {half:.3f}" if len(labels) > 1 else ""
        metric = result["metric"]
        agreed = f"{metric[0].upper()}{metric[1:]} {score:.3f}{spread} on {len(labels)} labelled examples"
    if json is not None:  # before anything is shown, as a reader may have gone
        result["predictions"] = [
            {"example": where, "answer": answer, "probability": round(float(sure), 6), "known": not strange}
            for where, answer, sure, strange in zip(asked.paths, answers, said.confidence, unknown, strict=True)
        ]
        write_json(json, result)
    console = Console()
    console.print(table)
    if len(answers) > 20:
        console.print(f"… and {len(answers) - 20} more" + ("" if json else "; --json FILE keeps all"))
    if agreed:
        console.print(agreed)
    if json is not None:
        print(f"→ {json}")


def _predict_table(
    queries: Path,
    out: Path,
    state: "TaskState",
    task: str,
    model: str,
    content: str | None,
    keep: list[str] | None,
    skip_bad: bool,
    json: Path | None,
) -> None:
    from quickstudy.adaptation.table import asker, predict_table
    from quickstudy.stats.intervals import share_interval
    from quickstudy.system.progress import showing_progress

    ask = asker(_loaded_for(state, task, model), state)
    with showing_progress() as progress:
        done = predict_table(
            queries,
            out,
            ask,
            state.kind,
            state.modality,
            content=content,
            keep=keep,
            skip_bad=skip_bad,
            progress=lambda rows, total: progress("predict", rows, total),
        )
    result = _about(state, task, model) | {"rows": done.rows, "unreadable": done.unreadable, "unknown": done.unknown}
    if done.labelled:
        score, half = share_interval(done.hits, done.labelled)
        result |= {"metric": done.metric, **_scored(done.metric, score), "ci95": half if done.labelled > 1 else None}
    if json is not None:
        write_json(json, result)
    notes = [f"{done.unreadable:,} could not be read"] if done.unreadable else []
    notes += [f"{done.unknown:,} seem to be of none of the classes"] if done.unknown else []
    print(f"{done.rows:,} rows{''.join(f', {note}' for note in notes)} → {out}")
    if done.labelled:
        metric = f"{done.metric[0].upper()}{done.metric[1:]} {score:.3f}"
        print(f"{metric} on the {done.labelled:,} rows with a label that the task knows")
    if json is not None:
        print(f"→ {json}")


def _adapted(task: str) -> "TaskState":
    from quickstudy.adaptation.state import TaskState

    path = STATES / f"{task}.safetensors"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in STATES.glob("*.safetensors"))) or "none yet"
        raise QuickstudyError(f"no task {task!r}", fix=f"There are: {known}. `quickstudy adapt` makes one")
    return TaskState.read(path)


def _loaded_for(state: "TaskState", task: str, model: str) -> "MetaModel":
    loaded, digest = _load(model, state.kind)
    if state.model != digest:
        raise QuickstudyError(
            f"task {task!r} was adapted by another model than {model}",
            where=STATES / f"{task}.safetensors",
            fix="Adapt it again, or name its --model",
        )
    return loaded


def _about(state: "TaskState", task: str, model: str) -> dict[str, Any]:
    """What a result says of the task and its model."""
    from quickstudy.kinds.scores import SCORES

    return {
        "kind": state.kind,
        "metric": SCORES[state.kind].NAME,
        "task": task,
        "model": model,
        "model_sha256": state.model,
        "way": len(state.names),
        "shot": min(state.shots),
        "episodes": 1,
        "adapt_ms": state.adapt_ms,
        **_scored(SCORES[state.kind].NAME, None),
        "ci95": None,
    }


def _scored(metric: str, score: float | None) -> dict[str, float | None]:
    """A score in a result, also by its own name, where that is a word: accuracy."""
    return {"score": score, **({metric: score} if metric.isidentifier() else {})}


@reads_source()
def evaluate(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A dataset's name, or a folder, .zip or table. Left out: the stage that judges build/model on the "
            "frozen episodes."
        ),
    ] = None,
    how: How = NOTHING,
    model: ModelOption = CHAMPION,
    way: Annotated[int, typer.Option(min=2, help="Classes an episode.")] = 5,
    shot: Annotated[int, typer.Option(min=1, help="Labelled examples a class.")] = 5,
    query: Annotated[int, typer.Option(min=1, help="Questions a class.")] = 5,
    episodes: Annotated[int, typer.Option(min=2)] = 600,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same episodes.")] = 0,
    json: JsonOption = None,
) -> None:
    """Judge a model on any data, also such as it has never seen: accuracy over many small tasks drawn from it.

    Of a dataset of this project that the model was trained on, only the meta-test groups are used.

    [dim]quickstudy evaluate omniglot.zip --way 20 --shot 1[/dim]
    """
    kind = how.fields.get("kind")
    if source is None:
        from quickstudy.pipeline.evaluate import evaluate as evaluate_stage

        return evaluate_stage(kind or "classify")
    from quickstudy.config import Episodes, Evaluate, load_settings
    from quickstudy.data.dataset import read_dataset
    from quickstudy.encoders.features import features
    from quickstudy.evaluation.answers import Subject, summarise
    from quickstudy.evaluation.answers import evaluate as judge
    from quickstudy.kinds.episodes import largest_way, pool_of
    from quickstudy.kinds.scores import SCORES
    from quickstudy.kinds.targets import targets_of
    from quickstudy.system.progress import showing_progress
    from quickstudy.tasks.frozen import freeze
    from quickstudy.tasks.suites import Suite, test_suites

    folder = Path("data") / source
    if (folder / "dataset.yaml").exists():
        dataset = read_dataset(folder)
        targets_of(dataset.info.kind)  # one that this version does not know is told here
        if kind is not None and kind != dataset.info.kind:
            raise QuickstudyError(f"is of kind {dataset.info.kind}, not {kind}", where=folder, fix="Leave --kind out")
        suites = test_suites(dataset, load_settings().splits)
        if not suites:
            fix = "Change splits.key or import it with --split test"
            raise QuickstudyError(
                "none of its groups is meta-test: the model was trained on all", where=folder, fix=fix
            )
        cache: Path | None = Path(".cache/features")
    else:
        import numpy as np

        dataset = _read(Path(source), how)
        suites = [Suite(dataset.name, "dataset", pool_of(dataset, np.ones(len(dataset), dtype=bool)))]
        cache = None
    for suite in suites:
        able = largest_way(suite.pool, way, shot + query) or 0
        if able < way and dataset.info.episode_scope == "dataset":
            word = targets_of(dataset.info.kind).WORD
            raise QuickstudyError(
                f"only {suite.pool.largest_way(shot + query)} {word} have {shot + query} examples (--shot + --query), "
                f"--way asks for {way}",
                where=source,
                fix="Ask for less",
            )
    loaded, digest = _load(model, dataset.info.kind)
    if dataset.modality not in loaded.encoders:
        raise QuickstudyError(f"the model has not learned {dataset.modality}", where=model)
    settings = Episodes(count=episodes, shots=(shot,), query=query, way=way, ways={})
    frozen = [block for suite in suites for block in freeze(suite, settings, seed)]
    if not frozen:
        raise QuickstudyError(
            f"no {dataset.info.group} has enough {targets_of(dataset.info.kind).WORD} of {shot + query} examples "
            "(--shot + --query)",
            where=source,
            fix="Ask for less",
        )
    with showing_progress() as progress:
        arrays, _ = features(
            dataset, loaded.encoder(dataset.modality), cache, lambda done, total: progress("prepare", done, total)
        )
        only_ours = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=10)
        frame = judge(
            loaded,
            {dataset.name: Subject(dataset, arrays)},
            frozen,
            only_ours,
            seed,
            lambda done, total: progress("evaluate", done, total),
        )
    rows, metric = summarise(frame), SCORES[dataset.info.kind].NAME
    if json is not None:
        results = [
            {
                "kind": row.kind,
                "metric": metric,
                "suite": row.suite,
                **_scored(metric, row.score),
                "ci95": row.ci95,
                "way": row.way,
                "shot": row.shot,
                "episodes": row.episodes,
                "adapt_ms": row.adapt_ms,
            }
            for row in rows.itertuples()
        ]
        write_json(json, {**results[0], "model": model, "model_sha256": digest, "seed": seed, "suites": results})
    for row in rows.itertuples():
        print(
            f"{row.suite}: {row.way}-way {row.shot}-shot {metric} {row.score:.4f} ± {row.ci95:.4f} "
            f"(95% over {row.episodes} episodes), adapts in {row.adapt_ms:.0f} ms"
        )
    if json is not None:
        print(f"→ {json}")


def _load(uri: str, kind: str) -> "tuple[MetaModel, str]":
    """A model's part for a kind, and the digest of its weights."""
    from quickstudy import registry
    from quickstudy.model.store import load_model, parts_of, weights_digest
    from quickstudy.system.environment import find_project

    root = find_project(Path.cwd())
    folder = registry.resolve(uri, root)
    parts = parts_of(folder)
    if parts and kind not in parts:
        has = registry.newest_with(root, kind)
        what = f"the model has no part for {kind} (it has {', '.join(parts)})"
        fix = (
            f"Version {has} has one: --model models:/{registry.NAME}/{has}"
            if has
            else f"Train one on data of kind {kind}"
        )
        raise QuickstudyError(what, where=uri, fix=fix)
    return load_model(folder, kind), weights_digest(folder, kind)


def _read(source: Path, how: How) -> "Dataset":
    from quickstudy.data.dataset import Dataset
    from quickstudy.ingest.importers.source import import_source
    from quickstudy.system.progress import showing_progress

    with showing_progress() as progress:
        info, table = import_source(
            source, "source", how.options(), progress=lambda done, total: progress("read", done, total), note=tell
        )
    return Dataset(info.model_copy(update={"name": source.stem.lower() or "source"}), table)


def tell(line: str) -> None:
    """Say what was decided about a source; what its groups are is nothing to a task."""
    if not line.startswith("no groups given"):
        print(f"Note: {line}")


def _draw(dataset: "Dataset", shots: int | None, seed: int, source: Path) -> Any:
    """Rows of the support set: all, or ``shots`` of each class, or tag."""
    import numpy as np

    from quickstudy.kinds.episodes import pool_of
    from quickstudy.kinds.targets import targets_of

    if shots is None:
        return np.arange(len(dataset))
    generator = np.random.default_rng(seed)
    chosen = []
    pool = pool_of(dataset, np.ones(len(dataset), dtype=bool))
    for name, start, count in zip(pool.classes, pool.starts.tolist(), pool.counts.tolist(), strict=True):
        if count < shots:
            what = f"{targets_of(dataset.info.kind).ONE} {name!r} has {count} examples, --shots asks for {shots}"
            raise QuickstudyError(what, where=source, fix="Ask for fewer")
        chosen.append(generator.permutation(pool.rows[start : start + count].numpy())[:shots])
    return np.array(list(dict.fromkeys(np.concatenate(chosen).tolist())))  # an example of two tags is one
