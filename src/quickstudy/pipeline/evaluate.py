"""The stage evaluate of a kind: build/model/KIND, build/tasks/KIND → build/evaluate/KIND."""

from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import answers
from quickstudy.evaluation.answers import Subject, beaten_by, nothing_to_judge, summarise, write_evaluation
from quickstudy.model.store import load_model, parts_of
from quickstudy.pipeline.arrays import read_arrays, set_threads
from quickstudy.pipeline.inputs import read_datasets
from quickstudy.pipeline.paths import EVALUATE, MODEL, NO_PART, TASKS, folder_of
from quickstudy.system.progress import showing_progress
from quickstudy.tasks.frozen import read_episodes


def evaluate(kind: str) -> None:
    """Judge the model's part for a kind on its frozen episodes, beside the baselines.

    Raises:
        QuickstudyError: there is no model, or there are no episodes of what it has learned.
    """
    settings = load_settings().of(kind)
    set_threads(settings)
    if kind not in parts_of(MODEL) and (MODEL / kind / NO_PART).exists():
        nothing_to_judge(folder_of(EVALUATE, kind))
        print(f"{kind}: nothing to judge, the model has no such part")
        return
    model = load_model(MODEL, kind)
    episodes = TASKS / kind / "episodes.parquet"
    frozen = [block for block in read_episodes(episodes, kind) if block.modality in model.encoders]
    if not frozen:
        raise QuickstudyError(
            f"no episodes of what the model has learned ({', '.join(model.modalities)})",
            where=episodes,
            fix="Import such data for meta-test, or other data for meta-train",
        )
    datasets = read_datasets(kind)
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
    write_evaluation(folder_of(EVALUATE, kind), frame)
    below = beaten_by(summarise(frame))
    print(f"{kind}: {len(frame):,} episodes judged; below a baseline's interval at {len(below)} places")
