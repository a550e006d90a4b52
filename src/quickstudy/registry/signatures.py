"""Signatures of the ledger's lines, by OpenSSH's own tool: a key that one has anyway, and a file of whose keys count.

https://man.openbsd.org/ssh-keygen#ALLOWED_SIGNERS
"""

import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from quickstudy.errors import QuickstudyError

NAMESPACE = "quickstudy-ledger"
"""A signature for another purpose does not count."""


def sign(key: Path, text: str) -> str:
    """Return a signature of a text.

    Raises:
        QuickstudyError: the key cannot sign; says why.
    """
    if not key.is_file():
        raise QuickstudyError("there is no such key", where=f"ledger.key: {key}", fix="Make one: ssh-keygen -t ed25519")
    done = _ssh_keygen(["-Y", "sign", "-n", NAMESPACE, "-f", str(key)], text.encode())
    if done.returncode != 0 or b"BEGIN SSH SIGNATURE" not in done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise QuickstudyError(
            f"cannot sign ({said[-1] if said else f'exit code {done.returncode}'})",
            where=f"ledger.key: {key}",
            fix="A key with a passphrase must be in the agent: ssh-add",
        )
    return done.stdout.decode()


def signer(signers: Path, text: str, signature: str | None) -> str | None:
    """Return who of a file of allowed signers has signed a text; None: none of them.

    Raises:
        QuickstudyError: there is no such file.
    """
    if not signers.is_file():
        raise QuickstudyError(
            "there is no such file",
            where=f"ledger.signers: {signers}",
            fix='A line a person: NAME namespaces="quickstudy-ledger" ssh-ed25519 AAAA…',
        )
    return _signer(signers, signers.read_bytes(), text, signature) if signature else None


@lru_cache(maxsize=10_000)
def _signer(signers: Path, content: bytes, text: str, signature: str) -> str | None:
    with tempfile.TemporaryDirectory() as scratch:
        kept, allowed = Path(scratch, "signature"), Path(scratch, "signers")
        kept.write_text(signature)
        allowed.write_bytes(content)
        told = _ssh_keygen(["-Y", "find-principals", "-s", str(kept), "-f", str(allowed)])
        for principal in told.stdout.decode(errors="replace").splitlines():
            command = ["-Y", "verify", "-n", NAMESPACE, "-s", str(kept), "-f", str(allowed), "-I", principal]
            if principal and _ssh_keygen(command, text.encode()).returncode == 0:
                return principal
    return None


def _ssh_keygen(arguments: list[str], stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(["ssh-keygen", *arguments], input=stdin, capture_output=True, check=False)
    except FileNotFoundError:
        raise QuickstudyError("ssh-keygen is not installed", fix="Install OpenSSH, or set ledger.key to null") from None
