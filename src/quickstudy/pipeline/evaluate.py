"""The stage evaluate: build/model, build/tasks → build/evaluate."""

from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import answers
from quickstudy.evaluation.answers import Subject, beaten_by, summarise, write_evaluation
from quickstudy.model.store import load_model
from quickstudy.pipeline.arrays import read_arrays, set_threads
from quickstudy.pipeline.inputs import read_datasets
from quickstudy.pipeline.paths import EVALUATE, MODEL, TASKS
from quickstudy.system.progress import showing_progress
from quickstudy.tasks.frozen import read_episodes


def evaluate() -> None:
    """Judge the model on the frozen episodes, beside the baselines. build/model, build/tasks → build/evaluate"""
    settings = load_settings()
    set_threads(settings)
    model = load_model(MODEL)
    frozen = [block for block in read_episodes(TASKS / "episodes.parquet") if block.modality in model.encoders]
    if not frozen:
        raise QuickstudyError(
            f"no episodes of what the model has learned ({', '.join(model.modalities)})",
            where=TASKS / "episodes.parquet",
            fix="Import such data for meta-test, or other data for meta-train",
        )
    datasets = read_datasets()
    with showing_progress() as progress:
        arrays = read_arrays(
            {name: datasets[name] for name in dict.fromkeys(block.dataset for block in frozen)}, model, progress
        )
        subjects = {name: Subject(datasets[name], array) for name, (array, _) in arrays.items()}
        frame = answers.evaluate(
            model,
            subjects,
            frozen,
            settings.evaluate,
            settings.seed,
            lambda done, total: progress("evaluate", done, total),
        )
    write_evaluation(EVALUATE, frame)
    below = beaten_by(summarise(frame))
    print(f"{len(frame):,} episodes judged; below a baseline's interval at {len(below)} places")
