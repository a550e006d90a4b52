"""Where the stages read and write, from the project's folder."""

from pathlib import Path

DATA, CACHE = Path("data"), Path(".cache")
TASKS, MODEL, META_TRAIN = Path("build/tasks"), Path("build/model"), Path("build/meta_train")
EVALUATE, CARD = Path("build/evaluate"), Path("build/card")
LIVE = CACHE / "live.jsonl"
"""A line for each step of the training that runs, or ran last."""
NO_PART = "none.json"
"""In the folder of a model's part: why there is none, where the project has no dataset of the kind."""
GATE = CACHE / "gate"


def folder_of(stage: Path, kind: str) -> Path:
    """Return where a stage writes for a kind, and make it. The files beside it, which the stage wrote before there were
    kinds, go: nobody reads them, and they would be taken for part of what was built."""
    for former in stage.glob("[!.]*"):
        if former.is_file():
            former.unlink(missing_ok=True)
    (stage / kind).mkdir(parents=True, exist_ok=True)
    return stage / kind


def gate_folder(challenger: int, champion: int | None) -> Path:
    """Return where the gate leaves verdict.json, the answers of both (challenger.parquet, champion.parquet) and, of the
    model in build/, a card with both."""
    return GATE / f"{challenger}-against-{champion or 'none'}"
