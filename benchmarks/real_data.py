"""The whole pipeline over starter and real data: Omniglot, CLINC150 and FSDD beside the starter datasets.

    .venv/bin/python benchmarks/real_data.py FOLDER [--datasets ../shared/datasets]

Clones the repository into FOLDER (outside of it), takes the starter data over, imports the three as their publishers
packed them, runs the pipeline there and writes its table to benchmarks/results/real_data.csv. Omniglot is judged on
held-out alphabets, CLINC150 on held-out domains, FSDD as a dataset that no training has seen.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
QUICKSTUDY = [sys.executable, "-m", "quickstudy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", type=Path, default=PROJECT / "../shared/datasets")
    arguments = parser.parse_args()
    folder, datasets = arguments.folder.resolve(), arguments.datasets.resolve()
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(folder)], check=True)
    if (PROJECT / "data").is_dir():
        shutil.copytree(PROJECT / "data", folder / "data")

    def quickstudy(*words: str) -> None:
        # The clone's own code, in this environment.
        environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
        subprocess.run([*QUICKSTUDY, *words], cwd=folder, check=True, env=environment)

    quickstudy("data", "build")
    omniglot, clinc = datasets / "omniglot", datasets / "clinc150"
    quickstudy("data", "import", str(omniglot / "images_background.zip"), "--name", "omniglot", "--licence", "MIT")
    quickstudy(
        "data",
        "import",
        str(clinc / "data_full.json"),
        "--name",
        "clinc150",
        "--group",
        str(clinc / "domains.json"),
        "--exclude-label",
        "oos",
        "--licence",
        "CC BY 3.0",
    )
    quickstudy(
        "data",
        "import",
        str(datasets / "fsdd" / "recordings.zip"),
        "--name",
        "fsdd",
        "--split",
        "test",
        "--pattern",
        "{class}_{speaker}_{}",
        "--domain",
        "speaker",
        "--licence",
        "CC BY-SA 4.0",
    )
    quickstudy("run")
    results = PROJECT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    shutil.copy(folder / "build/evaluate/classify/table.csv", results / "real_data.csv")


if __name__ == "__main__":
    main()
