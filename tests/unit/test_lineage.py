import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from quickstudy.versions import lineage


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "requirements.lock"
    assert lineage.file_hash(path) is None
    path.write_bytes(b"torch==2.13.0\n")
    assert lineage.file_hash(path) == hashlib.sha256(b"torch==2.13.0\n").hexdigest()


def test_the_record_names_code_environment_and_parameters(project: Path) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("seed: 0 ", "seed: 7 "))
    record = lineage.record(project)
    assert len(record["git_commit"] or "") == 40 and record["git_branch"] == "main"
    assert record["git_dirty"] and record["git_changed"] == ["params.yaml"]
    assert record["parameters"]["seed"] == 7 and record["parameters"]["splits.key"] == "quickstudy"
    assert record["data_hash"] is None and record["dvc_lock_hash"] is None
    assert record["requirements_lock_hash"] == lineage.file_hash(project / "requirements.lock")
    assert record["python"] == platform.python_version()
    assert record["packages"]["torch"] == version("torch")
    assert json.loads(lineage.to_json(record)) == record


def test_files_that_a_run_writes_do_not_make_the_code_dirty(project: Path) -> None:
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (project / "data.dvc").write_text("outs:\n- md5: 0123.dir\n  path: data\n")
    record = lineage.record(project)
    assert not record["git_dirty"]
    assert record["data_hash"] == "0123.dir"
    assert record["dvc_lock_hash"] == lineage.file_hash(project / "dvc.lock")


def test_of_the_features_the_latest_of_each_dataset_are_recorded(tmp_path: Path) -> None:
    folder = tmp_path / lineage.FEATURES
    folder.mkdir(parents=True)
    for age, name in enumerate(("some-image-aa.npy", "words-bb.npy", "words-cc.npy")):
        (folder / name).write_bytes(name.encode())
        os.utime(folder / name, (1000 - age, 1000 - age))
    (folder / "words-dd.npyx1.part").touch()
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("some-image-aa.npy", "words-bb.npy")}
    assert lineage.feature_hashes(tmp_path) == expected


def test_the_machine_tells_what_the_bits_depend_on() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert (lineage.machine()["threads"], lineage.machine(threads=2)["threads"]) == (3, 2)
    finally:
        torch.set_num_threads(before)
    assert lineage.machine()["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
