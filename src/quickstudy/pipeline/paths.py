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


def gate_folder(challenger: int, champion: int | None) -> Path:
    """Return where the gate leaves verdict.json, the answers of both (challenger.parquet, champion.parquet) and, of the
    model in build/, a card with both."""
    return GATE / f"{challenger}-against-{champion or 'none'}"
