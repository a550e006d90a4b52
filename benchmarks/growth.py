"""What a dataset that grows costs: memory, seconds of a step, and what is read again when 1% is added.

    .venv/bin/python benchmarks/growth.py [--sizes 10000 100000 1000000] [--modality text] [--before OTHER/src]

A project of its own in a temporary folder holds two datasets, made up from fixed seeds: `grows`, of the size asked for,
and `stays`, of 20,000. Texts of six words go through words-cnn, pictures of 28×28 pixels as PNG through conv4; 100
classes in 20 groups, so that classes grow with the data. Every step is the command that a person calls, in a process of
its own:

- `dvc add data`, `quickstudy tasks`, `quickstudy meta_train` (a few steps) on data never seen before;
- then `grows` gets 1% more examples, and the same three once more.

Memory is the largest sum over the command's processes, polled every 20 ms: what is their own ("anonymous"), and the
pages of files that they have mapped, which belong to the page cache and are given back when somebody needs them. What
is read is counted by the page cache too: both Parquet files are put out of it before a command and the pages that are
in it afterwards are counted, however they were read. The kernel reads ahead: where only labels are asked for, which lie
between the examples, pages around them count too. So the share of a file that is not examples stands beside.

`--before` runs the same with another version's sources in the same minutes. Seconds in the table are those of
processors, which say less of what else the machine does than those of the clock.
"""

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml
from PIL import Image

from quickstudy.data.dataset import DatasetInfo, Modality, make_table, write_dataset
from quickstudy.system.environment import apply_environment

REPOSITORY = Path(__file__).parents[1]
CLASSES, GROUPS, STAYS = 100, 20, 20_000
SIDES = {0: "test", 1: "test", 2: "test", 3: "test", 4: "validation", 5: "validation"}
"""Sides of the meta-split by group; the others are meta-train."""
POLL = 0.02  # seconds
MB = 2**20


def texts(rows: np.ndarray, salt: int) -> list[str]:
    """Six words each: one that tells the class, five that nobody else has."""
    own = np.random.default_rng(salt).bytes(15 * len(rows)).hex()
    spelt = [own[start : start + 30] for start in range(0, len(own), 30)]
    return [
        f"topic{row % CLASSES} {' '.join(letters[i : i + 6] for i in range(0, 30, 6))}"
        for row, letters in zip(rows.tolist(), spelt, strict=True)
    ]


def pictures(rows: np.ndarray, salt: int) -> list[bytes]:
    """A pattern of the class under noise of the example's own."""
    patterns = np.random.default_rng(salt).integers(0, 2, (CLASSES, 7, 7)).repeat(4, 1).repeat(4, 2)
    found = []
    for row in rows.tolist():
        blocks = np.random.default_rng([salt, row]).integers(0, 256, (7, 7)).repeat(4, 0).repeat(4, 1)
        buffer = io.BytesIO()
        Image.fromarray((patterns[row % CLASSES] * 100 + blocks * 0.6).astype(np.uint8)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def write(root: Path, name: str, modality: Modality, size: int) -> None:
    rows = np.arange(size)
    examples = (texts if modality == "text" else pictures)(rows, sum(name.encode()))
    labels = [f"class {row % CLASSES:03}" for row in rows.tolist()]
    groups = [f"group {row % CLASSES % GROUPS:02}" for row in rows.tolist()]
    pins = {f"group {g:02}": SIDES.get(g, "train") for g in range(GROUPS)}
    info = DatasetInfo.model_validate({"name": name, "modality": modality, "group": "topic", "meta_split": pins})
    write_dataset(root / "data", info, make_table(modality, examples, labels, groups))


def forked(*arguments: Any) -> None:
    """`write`, in a process of its own: this one stays small."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            write(*arguments)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "making the data failed"


def parameters(sources: Path, modality: Modality, steps: int) -> dict[str, Any]:
    """Those of the version's repository, for one modality, with few steps."""
    params = yaml.safe_load((sources.parent / "params.yaml").read_text(encoding="utf-8"))
    params["model"]["encoders"] |= {"text": "words-cnn"}
    params["train"]["tasks"] = {"image": 0, "audio": 0, "text": 0, modality: 2}
    params["train"] |= {"steps": steps, "validate_every": steps, "checkpoint_every": steps, "device": "cpu"}
    params["train"] |= {"threads": 1}
    return params


def files(root: Path) -> dict[str, Path]:
    return {name: root / "data" / name / "examples.parquet" for name in ("grows", "stays")}


def sizes(path: Path) -> dict[str, float]:
    """MB of a Parquet file, and the share of it that is not examples: labels, groups and the list of contents."""
    about, size = pq.read_metadata(path), path.stat().st_size
    examples = sum(
        group.column(place).total_compressed_size
        for group in map(about.row_group, range(about.num_row_groups))
        for place in range(group.num_columns)
        if group.column(place).path_in_schema.split(".")[0] in ("text", "image")
    )
    return {"MB": round(size / MB, 2), "labels": round(1 - examples / size, 4)}


def forget(root: Path) -> None:
    """Put the datasets out of the page cache."""
    for path in files(root).values():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_page_cache(path: Path) -> int:
    """Bytes of the file, whole pages."""
    told = subprocess.run(["fincore", "-b", "-n", "-o", "RES", str(path)], capture_output=True, text=True, check=True)
    return int(told.stdout or 0)


def processor_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(root: Path, sources: Path, *command: str) -> dict[str, Any]:
    """Seconds of the clock and of processors, memory in MB and MB read of each dataset, of one command."""
    forget(root)
    before = processor_seconds()
    environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    own = mapped = 0
    with (root / "log").open("w+b") as log:
        line = [sys.executable, "-m", *command]
        process = psutil.Popen(line, cwd=root, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            anonymous = shared = 0
            try:
                # A fork that has not yet become another program shares all that its parent has.
                children = [one for one in process.children(recursive=True) if one.cmdline() != line]
                for one in [process, *children]:
                    memory = one.memory_info()
                    anonymous, shared = anonymous + memory.rss - memory.shared, shared + memory.shared
            except psutil.NoSuchProcess:
                continue
            own, mapped = max(own, anonymous), max(mapped, shared)
            time.sleep(POLL)
        seconds = time.monotonic() - start
        log.seek(0)
        assert process.returncode == 0, log.read().decode()
    read = {name: in_page_cache(path) for name, path in files(root).items()}
    result = {"seconds": round(seconds, 1), "cpu": round(processor_seconds() - before, 1)}
    result |= {"anonymous": round(own / MB), "mapped": round(mapped / MB)}
    return result | {f"read {name}": round(count / MB, 2) for name, count in read.items()}


def step_seconds(root: Path, tasks: int) -> float:
    """The fastest step of the training that ran last: the others say more of what else the machine does."""
    lines = [json.loads(line) for line in (root / ".cache/live.jsonl").read_text().splitlines()]
    return round(min(tasks / line["tasks_per_second"] for line in lines), 4)


def grow(modality: Modality, size: int, sources: Path, steps: int) -> dict[str, Any]:
    """All that is measured of one size."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        params = parameters(sources, modality, steps)
        (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        shutil.copy(sources.parent / "dvc.yaml", root / "dvc.yaml")
        subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=root, check=True)
        forked(root, "stays", modality, STAYS)
        result: dict[str, Any] = {}
        for state, count in (("new", size), ("1% more", size + size // 100)):
            forked(root, "grows", modality, count)
            shutil.rmtree(root / "build", ignore_errors=True)
            one: dict[str, Any] = {"file": {name: sizes(path) for name, path in files(root).items()}}
            one["dvc add"] = measured(root, sources, "dvc", "add", "-q", "data")
            one["tasks"] = measured(root, sources, "quickstudy", "tasks")
            one["meta_train"] = measured(root, sources, "quickstudy", "meta_train")
            one["meta_train"]["step"] = step_seconds(root, sum(params["train"]["tasks"].values()))
            (reference,) = (root / "build/model").rglob("reference.safetensors")  # of the one kind, or without kinds
            one["model"] = round(reference.stat().st_size / MB, 2)
            result[state] = one
        return result


def show(modality: str, size: int, version: str, result: dict[str, Any]) -> None:
    new, more = result["new"], result["1% more"]
    whole = {name: file["MB"] for name, file in more["file"].items()}
    steps = ("dvc add", "tasks", "meta_train")
    again = max(more[step]["read stays"] for step in steps) / whole["stays"]
    grown = [more[step]["read grows"] / whole["grows"] for step in steps]
    print(
        f"| {modality} | {size:,} | {version} "
        f"| {new['tasks']['anonymous']} + {new['tasks']['mapped']} | {new['tasks']['cpu']} "
        f"| {new['meta_train']['anonymous']} + {new['meta_train']['mapped']} | {new['meta_train']['cpu']} "
        f"| {1000 * new['meta_train']['step']:.0f} "
        f"| {' + '.join(str(more[step]['cpu']) for step in steps)} "
        f"| {' + '.join(f'{share:.0%}' for share in grown)} | {again:.0%} ({more['file']['stays']['labels']:.0%}) |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--modality", nargs="+", choices=["text", "image"], default=["text"])
    parser.add_argument("--steps", type=int, default=10, help="of meta-training")
    parser.add_argument("--before", type=Path, metavar="SRC", help="src/ of another checkout, measured in turn")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/growth.json")
    asked = parser.parse_args()
    apply_environment(REPOSITORY)
    versions = {"now": REPOSITORY / "src"} | ({"before": asked.before.resolve()} if asked.before else {})
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    print(
        "| | examples | version | tasks MB own + mapped | s | meta_train MB own + mapped | s | ms a step "
        "| 1% more: s of dvc add + tasks + meta_train | read of it | of the other (labels) |"
    )
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for modality in asked.modality:
        for size in asked.sizes:
            for version, sources in versions.items():
                found = grow(modality, size, sources, asked.steps)
                results.setdefault(modality, {}).setdefault(str(size), {})[version] = found
                show(modality, size, version, found)
                asked.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
