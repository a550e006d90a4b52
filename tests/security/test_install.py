"""What is installed is what was looked at: every file that pip takes has a sha256 that stands in the repository."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.hashes import CUDA, HASHES, LOCK, OF_CUDA, entries, versions

REPOSITORY = Path(__file__).parents[2]


def test_every_locked_version_has_its_hashes() -> None:
    locked, hashed = versions(LOCK.read_text()), HASHES.read_text()
    assert locked.items() <= versions(hashed).items()
    for name, text in entries(hashed).items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", text), name
        more = name not in locked
        assert not more or ";" in text.splitlines()[0] or name == "nvidia-ml-py", name  # what another platform needs
    assert not [name for name in entries(hashed) if OF_CUDA.match(name)]
    assert all(OF_CUDA.match(name) for name in entries(CUDA.read_text()))


def test_no_index_is_named() -> None:
    for path in (LOCK, HASHES, CUDA):
        assert not re.search(r"://|--(extra-)?index-url|--find-links", path.read_text())


def test_make_and_the_container_install_nothing_else() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    install = makefile[makefile.index("install: ##") : makefile.index("lock: ##")]
    checked = re.search(r"^CHECKED := (.*)$", makefile, re.MULTILINE)
    assert checked and {"--require-hashes", "--no-deps", "--no-build-isolation"} <= set(checked[1].split())
    for call in re.findall(r"pip install ([^&|;]*)", install):
        assert "$(CHECKED)" in call or "--no-deps --no-build-isolation --editable ." in call
    container = (REPOSITORY / "deploy/Containerfile").read_text()
    assert "--require-hashes --no-deps" in container


def test_another_file_of_the_same_version_is_refused(tmp_path: Path) -> None:
    """As from a mirror that was broken into."""
    wheel = tmp_path / "zipp-4.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("zipp/__init__.py", "raise SystemExit('run')")
        archive.writestr("zipp-4.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipp\nVersion: 4.1.2\n")
        archive.writestr("zipp-4.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("zipp-4.1.2.dist-info/RECORD", "")
    if versions(LOCK.read_text())["zipp"] != "4.1.2":
        pytest.skip("another version is locked")
    (tmp_path / "zipp.hashes").write_text(entries(HASHES.read_text())["zipp"])
    command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-index", "--find-links"]
    command += [str(tmp_path), "--target", str(tmp_path / "there"), "-r", str(tmp_path / "zipp.hashes")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "there").exists()
