"""Known vulnerabilities of what requirements.lock names: `make audit`, and a test beside this file.

pip-audit asks PyPI for what the Python Packaging Advisory Database knows of each version. A mirror may answer for PyPI
without that part, or not know a version, which pip-audit takes for harmless. So a version of which something is known
is asked for too: where nothing is said of it, the database was not reached, whatever else was said.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[2] / "requirements.lock"
KNOWN = ("django", "3.0")  # none of ours
ACCEPTED: dict[str, str] = {}
"""By id or alias, as GHSA-… or CVE-…: why a vulnerability does not concern us. One that is no longer found must go."""


class NotReached(Exception):
    """The database could not be asked."""


def ask(lock: Path, *options: str) -> dict[str, Any]:
    """What pip-audit says of a file of exact versions, as JSON.

    Raises:
        NotReached: it could not ask the database.
    """
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known.txt"
        known.write_text("==".join(KNOWN))
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off"]
        command += ["--format=json", "-r", str(lock), "-r", str(known), *options]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except ValueError:  # it ended in a traceback, or said what is wrong
        raise NotReached((done.stderr.strip() or "pip-audit said nothing").splitlines()[-1]) from None
    found = {one["name"]: one.get("vulns") for one in report["dependencies"]}
    if not found.get(KNOWN[0]):
        raise NotReached(f"nothing is said of {'=='.join(KNOWN)}, which is known to be vulnerable")
    report["dependencies"] = [one for one in report["dependencies"] if one["name"] != KNOWN[0]]
    return report


def complaints(report: Mapping[str, Any], accepted: Mapping[str, str] = ACCEPTED) -> list[str]:
    """A line for each vulnerability that is not accepted, and for each accepted one that is not there."""
    lines, seen = [], set()
    for package in report["dependencies"]:
        for vulnerability in package.get("vulns", ()):  # of one that PyPI does not know nothing is said
            names = [vulnerability["id"], *vulnerability["aliases"]]
            if known := accepted.keys() & set(names):
                seen |= known
                continue
            mended = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {' = '.join(names)}, mended by {mended}")
    return lines + [f"{name} is accepted and not found: take it out" for name in accepted if name not in seen]


def main() -> None:
    try:
        report = ask(LOCK)
    except NotReached as error:
        raise SystemExit(f"audit: the database of vulnerabilities was not reached: {error}") from None
    lines = complaints(report)
    skipped = [one["name"] for one in report["dependencies"] if "skip_reason" in one]
    print(f"audit: {len(report['dependencies']) - len(skipped)} packages", end="")
    print(f"; PyPI does not know {', '.join(skipped)}" if skipped else "")
    if lines:
        raise SystemExit("\n".join([*lines, "Renew requirements.lock, or say in tests/house/audit.py why not"]))


if __name__ == "__main__":
    main()
