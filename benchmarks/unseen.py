"""The champion, meta-trained on starter data alone, on real data that it has never seen.

    .venv/bin/python benchmarks/unseen.py [--datasets ../shared/datasets] [--model models:/quickstudy@champion]

Prints a table and writes benchmarks/results/unseen.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SPOKEN = ["--pattern", "{class}_{speaker}_{}"]
TRIALS = [
    # name, file, options, way, shot, the mark to reach
    ("Omniglot background", "omniglot/images_background.zip", [], 20, 1, 0.82),
    ("Omniglot background", "omniglot/images_background.zip", [], 20, 5, None),
    ("FSDD, real speakers", "fsdd/recordings.zip", SPOKEN, 10, 1, None),
    ("FSDD, real speakers", "fsdd/recordings.zip", SPOKEN, 10, 5, 0.70),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, default=Path("../shared/datasets"))
    parser.add_argument("--model", default="models:/quickstudy@champion")
    arguments = parser.parse_args()
    results = []
    for name, file, options, way, shot, mark in TRIALS:
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            command = [sys.executable, "-m", "quickstudy", "evaluate", str(arguments.datasets / file), *options]
            command += ["--way", str(way), "--shot", str(shot), "--model", arguments.model, "--json", out.name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            result = json.loads(Path(out.name).read_text())
        results.append({"dataset": name, "mark": mark, **{k: v for k, v in result.items() if k != "suites"}})
        reached = "" if mark is None else f"  mark {mark:.2f}: {'reached' if result['accuracy'] >= mark else 'missed'}"
        print(f"{name:22} {way:3}-way {shot:2}-shot  {result['accuracy']:.4f} ± {result['ci95']:.4f}{reached}")
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "unseen.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
