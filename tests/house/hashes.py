"""The sha256 of every file that `make install` may install: `make lock` calls this.

    python tests/house/hashes.py UV        # reads requirements.lock, writes requirements.hashes and the other

requirements.lock says which versions, requirements.hashes which bytes: of each version the hash of every file that PyPI
has, for whatever platform, and what other platforms need besides, with its marker. pip then takes no other
(--require-hashes) and asks for nothing that stands in neither (--no-deps). What torch asks for where it is built for
CUDA stands in a file of its own, as a marker cannot say which build is installed.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK, HASHES, CUDA = (ROOT / name for name in ("requirements.lock", "requirements.hashes", "requirements-cuda.hashes"))

OF_CUDA = re.compile(r"(nvidia-(?!ml-py\b)|cuda-|triton\b)")
PROGRAMS = {"pip", "uv"}
"""They install, and are not installed."""

HEADER = """\
# What `make install` installs, file by file; written by `make lock` from {source}. A build of torch of your own, as one
# without CUDA for another Python: add its hash (pip hash FILE) below torch, or pip refuses it.
"""


def versions(text: str) -> dict[str, str]:
    """Return name → version of the lines of a lock; names as PyPI compares them."""
    found = (re.match(r"([\w.-]+)==([^\s;]+)", line) for line in text.splitlines())
    return {normal(one[1]): one[2] for one in found if one}


def entries(text: str) -> dict[str, str]:
    """Return name → its line and the hashes below it, of a file that pip reads."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if match := re.match(r"([\w.-]+)==", line):
            name = normal(match[1])
            found[name] = ""
        if name and line and not line.startswith("#"):
            found[name] += line + "\n"
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def compiled(uv: str, source: Path, constraint: Path, *options: str) -> dict[str, str]:
    """What uv finds for a source, for every platform."""
    command = [uv, "pip", "compile", str(source), "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet", *options]
    command += ["--constraint", str(constraint)]
    return entries(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def torch_here(version: str) -> str | None:
    """The hash of the build of torch that pip takes here, which PyPI may not have."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    command += ["--report", "-", f"torch=={version}"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return str(report["install"][0]["download_info"]["archive_info"]["hashes"]["sha256"])


def main() -> None:
    uv = sys.argv[1]
    locked = versions(LOCK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.in"
        plain.write_text("".join(f"{name}=={version}\n" for name, version in locked.items()))
        found = compiled(uv, plain, plain, "--no-deps") | compiled(uv, ROOT / "pyproject.toml", plain, "--extra=dev")
    own = torch_here(locked["torch"])
    if own is not None and own not in found["torch"]:
        found["torch"] = f"{found['torch'].rstrip()} \\\n    --hash=sha256:{own}\n"
    for path, of_cuda in ((HASHES, False), (CUDA, True)):
        chosen = [
            text
            for name, text in sorted(found.items())
            if bool(OF_CUDA.match(name)) == of_cuda and name not in PROGRAMS
        ]
        path.write_text(
            HEADER.format(source="requirements.lock and pyproject.toml") + "".join(chosen), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
