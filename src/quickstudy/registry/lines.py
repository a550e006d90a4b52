"""The ledger's lines where they lie, and what else is known of them: their signatures, and what git keeps of them.

MLflow has no log to append to, but it numbers the versions of a model without gaps or repeats, whoever makes them:
version N of the registered model ``quickstudy-ledger`` is the ledger's line N, in a tag. So the ledger lies where the
aliases lie, in the project's own store as in a server's.
"""

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from quickstudy.config import Ledger as Settings
from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.registry import ledger, signatures, store
from quickstudy.registry.ledger import Break, Ledger, LedgerEntry
from quickstudy.registry.store import NAME
from quickstudy.system.environment import HOME, serving
from quickstudy.versions import anchor

LEDGER = f"{NAME}-ledger"

ENTRY, SIGNATURE = "entry", "signature"
"""Tags of a line."""

LEDGER_END = "ledger_end"
"""Of the registered model: the digest of the ledger's last line, or of an older one where a process was killed."""

_log = logging.getLogger(__name__)


def settings(root: Path) -> Settings:
    """Return what params.yaml says of the ledger; the defaults where there is none."""
    path = root / "params.yaml"
    return load_settings(path).ledger if path.exists() else Settings()


def chain_now(root: Path) -> Ledger:
    """Return the ledger as it stands, with a move that was cut off left open, and the lines at which it does not hold.
    Change nothing."""
    asked = settings(root)
    kept = anchor.anchored(root, _anchor(root)) if asked.anchor else None  # before the lines, of which it knows a part
    lines, end = _read(root)
    unsigned = {}
    if asked.signers is not None:
        signers = _path(root, asked.signers)
        unsigned = {
            number: "is not signed by any of ledger.signers"
            for number, text, signature in lines
            if signatures.signer(signers, text, signature) is None
        }
    found = ledger.read(((number, text) for number, text, _ in lines), end, unsigned)
    return replace(found, breaks=(*found.breaks, *_missing(found, kept, "git")))


def signers(root: Path) -> dict[int, str]:
    """Return who has signed each line, of those whose signatures count."""
    asked = settings(root)
    if asked.signers is None:
        return {}
    found = {number: signatures.signer(_path(root, asked.signers), text, sign) for number, text, sign in _read(root)[0]}
    return {number: who for number, who in found.items() if who is not None}


def compare_remote(root: Path, found: Ledger) -> tuple[Break, ...]:
    """Return what the git remote of ``ledger.remote`` keeps of the ledger and the ledger has not.

    Raises:
        QuickstudyError: the remote does not answer.
    """
    asked = settings(root)
    if not asked.anchor or asked.remote is None:
        return ()
    return _missing(found, anchor.fetched(root, _anchor(root), asked.remote), f"the git remote {asked.remote}")


def append(root: Path, client: Any, line: LedgerEntry) -> None:
    """Write a line, signed where ``ledger.key`` says by what.

    Raises:
        QuickstudyError: the key cannot sign. Nothing was written.
    """
    from mlflow.exceptions import MlflowException

    key = settings(root).key
    signed = {} if key is None else {SIGNATURE: signatures.sign(_path(root, key), line.line)}
    with contextlib.suppress(MlflowException):  # it exists
        client.create_registered_model(
            LEDGER, description=f"No model: version N is line N of the ledger of {NAME}, in its tag {ENTRY}."
        )
    client.create_model_version(
        LEDGER, source="ledger:/line", tags={ENTRY: line.line, **signed}, await_creation_for=None
    )


def end(root: Path, client: Any, line: LedgerEntry) -> None:
    """Remember the last line in the places beside the ledger: a tag, and git. What a remote does not take it gets with
    the next one."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # no model is registered any more: the line says that it may be so
        client.set_registered_model_tag(NAME, LEDGER_END, line.digest)
    asked = settings(root)
    if not asked.anchor:
        return
    try:
        found = chain_now(root)
        kept = anchor.fetched(root, _anchor(root), asked.remote) if asked.remote is not None else None
        if line.kind != "accepted" and _missing(found, kept, ""):
            raise QuickstudyError("it knows lines that are not in it", where=f"the git remote {asked.remote}")
        digests = [entry.digest for entry in found.entries.values()]
        texts = {json.loads(text).get("digest"): text for _, text, _ in _read(root)[0] if text.startswith("{")}
        content = "".join(f"{texts[digest]}\n" for digest in digests if digest in texts)
        anchor.anchor(root, _anchor(root), content, f"{line.kind} {line.verb}, line {line.digest}")
        if asked.remote is not None:
            anchor.send(root, _anchor(root), asked.remote)
    except QuickstudyError as error:  # the aliases have moved, and the ledger says so
        _log.warning("git does not keep the last line of the ledger (%s)", error)


def evidence(root: Path, version: int) -> dict[str, Any]:
    """Return what the ledger says of a version since it was registered: digests; nothing where it was not said."""
    lines, last = _read(root)
    for entry in ledger.read(((number, text) for number, text, _ in lines), last).entries.values():
        mine = entry.verb == "register" and any(move.target == version for move in entry.moves)
        if mine and isinstance(entry.evidence, dict):
            return entry.evidence
    return {}


def _missing(found: Ledger, kept: str | None, where: str) -> tuple[Break, ...]:
    """What is kept elsewhere of the ledger, and is not in it."""
    if kept is None:
        return ()
    there = {entry.digest for entry in found.entries.values()}
    lost = [digest for line in kept.splitlines() if (digest := json.loads(line)["digest"]) not in there]
    if not lost:
        return ()
    others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return (
        Break(0, f"{where} knows a line {lost[0][:12]}…{others} that is not in it: it was emptied or written anew"),
    )


def _anchor(root: Path) -> str:
    """Return the name of what git keeps of this store's ledger: of the project's own, also where `quickstudy up` serves
    it, or of a server's."""
    uri = store.tracking_uri(root)
    homes = [root, *([Path(os.environ[HOME])] if HOME in os.environ else [])]
    if store.is_local(root) or any(uri == (serving(home) or {}).get("mlflow") for home in homes):
        return "ledger/own"
    return f"ledger/{hashlib.sha256(store.redacted(uri).encode()).hexdigest()[:16]}"


def _path(root: Path, name: str) -> Path:
    return root / Path(name).expanduser()


def _read(root: Path) -> tuple[list[tuple[int, str, str | None]], str | None]:
    """Return number, text and signature of each line, and the digest that is kept of the last one."""
    if store.is_local(root):
        rows = store.query(
            root,
            f"SELECT v.version, coalesce(t.value, ''), s.value FROM model_versions v"
            f" LEFT JOIN model_version_tags t ON t.name = v.name AND t.version = v.version AND t.key = '{ENTRY}'"
            f" LEFT JOIN model_version_tags s ON s.name = v.name AND s.version = v.version AND s.key = '{SIGNATURE}'"
            " WHERE v.name = ? ORDER BY v.version",
            LEDGER,
        )
        ends = store.query(root, "SELECT value FROM registered_model_tags WHERE name = ? AND key = ?", NAME, LEDGER_END)
        return [(int(number), text, sign) for number, text, sign in rows], ends[0][0] if ends else None
    from mlflow.exceptions import MlflowException

    client = store.client(root)
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{LEDGER}'", max_results=1000, page_token=token)
        found += page
        if not (token := page.token):
            break
    try:
        last = client.get_registered_model(NAME).tags.get(LEDGER_END)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        last = None
    return sorted((int(line.version), line.tags.get(ENTRY, ""), line.tags.get(SIGNATURE)) for line in found), last
