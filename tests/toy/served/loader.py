"""A loader with the contract of quickstudy.adaptation.pyfunc: it answers with the first label that it is shown."""

from pathlib import Path

import pandas as pd

WEIGHTS = "classify/model.safetensors"


class Toy:
    def __init__(self, path: Path):
        self.digest = (path / WEIGHTS).read_bytes().hex()

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        labels = [[row.support[0]["label"]] * len(row.queries) for row in frame.itertuples()]
        return pd.DataFrame({"labels": labels})


def _load_pyfunc(path: str) -> Toy:
    return Toy(Path(path))


def example() -> pd.DataFrame:
    support = [{"input": "rain again", "label": "news"}, {"input": "my cat and I", "label": "blog"}]
    return pd.DataFrame({"modality": ["text"], "support": [support], "queries": [["storm ahead", "my dog"]]})
