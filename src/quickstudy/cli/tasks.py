"""Use a model: judge it on any data, teach it a task, ask it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.atomic import draft, write_json
from quickstudy.errors import QuickstudyError

if TYPE_CHECKING:
    from quickstudy.data.dataset import Dataset
    from quickstudy.model.metamodel import MetaModel

CHAMPION = "models:/quickstudy@champion"
STATES = Path("adapted")
PANEL = "Use the model"

ModelOption = Annotated[
    str,
    typer.Option("--model", metavar="URI", help="models:/quickstudy@ALIAS, models:/quickstudy/VERSION or a folder."),
]
ModalityOption = Annotated[
    str | None, typer.Option("--modality", "-m", help="image, audio or text; told from the files where left out.")
]
PatternOption = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="How file names hold the class, e.g. '{class}_{speaker}_{}'.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(rich_help_panel=PANEL)(adapt)
    app.command(rich_help_panel=PANEL)(predict)
    app.command(rich_help_panel=PANEL)(evaluate)


def adapt(
    support: Annotated[Path, typer.Argument(help="Labelled examples: CLASS/file folders, a .zip, or a table.")],
    task: Annotated[str, typer.Option("--task", "-t", metavar="NAME", help="What the task is to be called.")],
    shots: Annotated[
        int | None, typer.Option("--shots", "-k", min=1, help="Use K examples a class, drawn by the seed; else all.")
    ] = None,
    modality: ModalityOption = None,
    pattern: PatternOption = None,
    model: ModelOption = CHAMPION,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Teach the model a task from a handful of labelled examples; a small file holds what it learned.

    [dim]quickstudy adapt photos/ --task defects --shots 5[/dim]
    """

    from quickstudy.data.importers import check_name
    from quickstudy.model.task_state import adapt as adapt_task

    check_name(task)
    dataset = _read(support, modality, pattern)
    rows = _draw(dataset, shots, seed, support)
    loaded, digest = _load(model)
    examples = dataset.raw(rows)
    labels = [dataset.classes[i] for i in dataset.class_index[rows]]
    adapt_task(loaded, dataset.modality, examples[:1] * 2, ["a", "b"], "")  # weights and kernels are warm from here on
    state = adapt_task(loaded, dataset.modality, examples, labels, digest)
    path = STATES / f"{task}.safetensors"
    with draft(path) as part:
        part.write_bytes(state.to_bytes())
    low, high = min(state.shots), max(state.shots)
    each = f"{low}" if low == high else f"{low} to {high}"
    print(f"Learned {task!r} in {state.adapt_ms:.0f} ms: {len(state.classes)} classes, {each} examples each → {path}")
    print(f"Next: `quickstudy predict --task {task} FILES`")


def predict(
    queries: Annotated[Path, typer.Argument(help="A file, a folder or a table; a .txt file has a text a line.")],
    task: Annotated[str, typer.Option("--task", "-t", metavar="NAME", help="A task that was adapted.")],
    pattern: PatternOption = None,
    model: ModelOption = CHAMPION,
    json: JsonOption = None,
) -> None:
    """Ask an adapted task about new examples; says the accuracy too where they carry labels.

    [dim]quickstudy predict new_photos/ --task defects --json answers.json[/dim]
    """
    from rich.console import Console
    from rich.table import Table

    from quickstudy.data.importers import read_queries
    from quickstudy.model.task_state import TaskState
    from quickstudy.model.task_state import predict as predict_task
    from quickstudy.stats import mean_interval

    path = STATES / f"{task}.safetensors"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in STATES.glob("*.safetensors"))) or "none yet"
        raise QuickstudyError(f"no task {task!r}", fix=f"There are: {known}. `quickstudy adapt` makes one")
    state = TaskState.read(path)
    asked = read_queries(queries, state.modality, pattern=pattern)
    loaded, digest = _load(model)
    if state.model != digest:
        raise QuickstudyError(
            f"task {task!r} was adapted by another model than {model}",
            where=path,
            fix="Adapt it again, or name its --model",
        )
    chances = predict_task(loaded, state, asked.contents)
    answers = [state.classes[i] for i in chances.argmax(1)]
    # Labels count only where the task knows them: a folder's name may say something else.
    labels = asked.labels if asked.labels is not None and set(asked.labels) <= set(state.classes) else None
    table = Table("example", "answer", "probability", *(["label"] if labels else []))
    for i in range(min(len(answers), 20)):
        name = asked.contents[i][:60] if state.modality == "text" else asked.paths[i]
        extra = [] if labels is None else [labels[i] if labels[i] == answers[i] else f"[red]{labels[i]}[/red]"]
        table.add_row(name, answers[i], f"{chances[i].max():.2f}", *extra)
    console = Console()
    console.print(table)
    if len(answers) > 20:
        console.print(f"… and {len(answers) - 20} more" + ("" if json else "; --json FILE keeps all"))
    result: dict[str, Any] = {"task": task, "model": model, "model_sha256": digest, "way": len(state.classes)}
    result |= {"shot": min(state.shots), "episodes": 1, "adapt_ms": state.adapt_ms, "accuracy": None, "ci95": None}
    if labels is not None:
        hits = [a == b for a, b in zip(answers, labels, strict=True)]
        result["accuracy"], half = mean_interval(hits)
        result["ci95"] = half if len(hits) > 1 else None
        spread = f" ± {half:.3f}" if len(hits) > 1 else ""
        console.print(f"Accuracy {result['accuracy']:.3f}{spread} on {len(hits)} labelled examples")
    if json is not None:
        result["predictions"] = [
            {"example": where, "answer": answer, "probability": round(float(chance.max()), 6)}
            for where, answer, chance in zip(asked.paths, answers, chances, strict=True)
        ]
        _write_result(json, result)


def evaluate(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A dataset's name, or a folder, .zip or table. Left out: the stage that judges build/model on the "
            "frozen episodes."
        ),
    ] = None,
    modality: ModalityOption = None,
    pattern: PatternOption = None,
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
    if source is None:
        from quickstudy.cli.stages import evaluate_stage

        return evaluate_stage()
    from quickstudy.cli.progress import showing_progress
    from quickstudy.config import Episodes, Evaluate, load_settings
    from quickstudy.data.dataset import read_dataset
    from quickstudy.evaluation import Subject, summarise
    from quickstudy.evaluation import evaluate as judge
    from quickstudy.model.features import features
    from quickstudy.tasks.episodes import Pool, Suite, test_suites
    from quickstudy.tasks.frozen import freeze

    folder = Path("data") / source
    if (folder / "dataset.yaml").exists():
        dataset = read_dataset(folder)
        suites = test_suites(dataset, load_settings().splits)
        if not suites:
            fix = "Change splits.key or import it with --split test"
            raise QuickstudyError(
                "none of its groups is meta-test: the model was trained on all", where=folder, fix=fix
            )
        cache: Path | None = Path(".cache/features")
    else:
        import numpy as np

        dataset = _read(Path(source), modality, pattern)
        suites = [Suite(dataset.name, "dataset", Pool.of(dataset, np.ones(len(dataset), dtype=bool)))]
        cache = None
    for suite in suites:
        able = suite.pool.largest_way(shot + query)
        if able < way and dataset.info.episode_scope == "dataset":
            raise QuickstudyError(
                f"only {able} classes have {shot + query} examples (--shot + --query), --way asks for {way}",
                where=source, fix="Ask for less",
            )  # fmt: skip
    loaded, digest = _load(model)
    if dataset.modality not in loaded.encoders:
        raise QuickstudyError(f"the model has not learned {dataset.modality}", where=model)
    settings = Episodes(count=episodes, shots=(shot,), query=query, way=way, ways={})
    frozen = [block for suite in suites for block in freeze(suite, settings, seed)]
    if not frozen:
        raise QuickstudyError(
            f"no {dataset.info.group} has two classes of {shot + query} examples (--shot + --query)",
            where=source, fix="Ask for less",
        )  # fmt: skip
    with showing_progress() as progress:
        arrays, _ = features(
            dataset, loaded.encoder(dataset.modality), cache, lambda done, total: progress("prepare", done, total)
        )
        only_ours = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=10)
        frame = judge(loaded, {dataset.name: Subject(dataset, arrays)}, frozen, only_ours, seed,
                      lambda done, total: progress("evaluate", done, total))  # fmt: skip
    rows = summarise(frame)
    for row in rows.itertuples():
        print(
            f"{row.suite}: {row.way}-way {row.shot}-shot accuracy {row.accuracy:.4f} ± {row.ci95:.4f} "
            f"(95% over {row.episodes} episodes), adapts in {row.adapt_ms:.0f} ms"
        )
    if json is not None:
        results = [
            {"suite": row.suite, "accuracy": row.accuracy, "ci95": row.ci95, "way": row.way, "shot": row.shot,
             "episodes": row.episodes, "adapt_ms": row.adapt_ms}
            for row in rows.itertuples()
        ]  # fmt: skip
        _write_result(json, {**results[0], "model": model, "model_sha256": digest, "seed": seed, "suites": results})


def _load(uri: str) -> "tuple[MetaModel, str]":
    from quickstudy.environment import find_project
    from quickstudy.model.store import load_model, weights_digest
    from quickstudy.registry import resolve

    folder = resolve(uri, find_project(Path.cwd()))
    return load_model(folder), weights_digest(folder)


def _read(source: Path, modality: Any, pattern: str | None) -> "Dataset":
    from quickstudy.cli.progress import showing_progress
    from quickstudy.data.dataset import Dataset
    from quickstudy.data.importers import import_source

    with showing_progress() as progress:
        info, table = import_source(
            source, "source", modality, pattern=pattern, progress=lambda done, total: progress("read", done, total)
        )
    return Dataset(info.model_copy(update={"name": source.stem.lower() or "source"}), table)


def _draw(dataset: "Dataset", shots: int | None, seed: int, source: Path) -> Any:
    """Rows of the support set: all, or ``shots`` of each class."""
    import numpy as np

    if shots is None:
        return np.arange(len(dataset))
    generator = np.random.default_rng(seed)
    chosen = []
    for number, name in enumerate(dataset.classes):
        rows = np.flatnonzero(dataset.class_index == number)
        if len(rows) < shots:
            raise QuickstudyError(
                f"class {name!r} has {len(rows)} examples, --shots asks for {shots}", where=source, fix="Ask for fewer"
            )
        chosen.append(generator.permutation(rows)[:shots])
    return np.concatenate(chosen)


def _write_result(path: Path, result: dict[str, Any]) -> None:
    write_json(path, result)
    print(f"→ {path}")
