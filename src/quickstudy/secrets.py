"""What is a secret: names of files that hold one, texts that look like one, and addresses without their passwords.

Whatever is recorded, shown or logged goes through `redacted`, and whatever a patch would carry into MLflow through
`find_secrets`. Both err on the side of an honest file: a digest, an identifier, a placeholder of the docs is none. A
line that says ``pragma: allowlist secret``, as other scanners have it, is passed over.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

MASK = "***"

ALLOWED = "pragma: allowlist secret"

SECRET_FILES = (
    ".env*",
    "*.env",
    "env.local",
    "*.pem",
    "*.key",
    "*.p8",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "*.ovpn",
    "*.asc",
    "*.gpg",
    "id_*",
    "*_rsa",
    "*_ed25519",
    "*_ecdsa",
    ".netrc",
    "_netrc",
    ".pgpass",
    "pgpass.conf",
    ".my.cnf",
    ".pypirc",
    ".npmrc",
    ".htpasswd",
    ".git-credentials",
    ".dockerconfigjson",
    "auth.ini",
    "config.local",
    "credentials*",
    "*credentials.json",
    "client_secret*",
    "service-account*",
    "service_account*",
    "secret.*",
    "secrets.*",
    "*.secret",
    "*.secrets",
    "password*",
    "passwd*",
    "token",
    "token.*",
    "*.token",
    "kubeconfig*",
    "*.tfvars",
    "*.tfstate*",
)
SECRET_FOLDERS = (".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", "secrets", ".secrets")
NOT_SECRET = ("*.py", "*.pub", "*.md", "*.example", "*.sample", "*.template", "*.dist")
"""Code and public halves may be named so: ``secrets.py``, ``id_ed25519.pub``."""

_NAMES = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|auth[_-]?(?:string|key|token)|"
    r"(?:api|access|account|private|secret|shared|encryption|signing|master|client|storage)[_-]?key(?:[_-]?id)?|"
    r"connection[_-]?string|conn[_-]?str|sas|webhook)"
)

# ---- shapes that are secrets wherever they stand

_KEY_BEGIN = r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
_KEY_BLOCK = re.compile(
    _KEY_BEGIN + r"(?:.*?-----END (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----|.*)",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[\w-]{20,}|gl[a-z]{2,6}-[\w-]{20,}"
    r"|xox[abeoprs]-[\w-]{10,}|xapp-[\w-]{10,}"  # Slack
    r"|sk-[A-Za-z0-9_-]{20,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}"  # Google
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|dop_v1_[a-f0-9]{40,}|pn[ub]_[A-Za-z0-9]{30,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|AGE-SECRET-KEY-1[A-Z0-9]{50,}"
    r"|eyJ[\w-]{10,1000}\.eyJ[\w-]{10,4000}\.[\w-]{10,}"  # a JSON web token
    r")(?![A-Za-z0-9])"
)
_WEBHOOK = re.compile(
    r"(?i)(https://(?:hooks\.slack\.com/(?:services|workflows)|(?:\w+\.)?discord(?:app)?\.com/api/webhooks"
    r"|[\w.-]+\.webhook\.office\.com/webhookb2|api\.telegram\.org/bot)/?)[^\s\"'<>]+"
)
# Of an address the name and the password, which may hold what it should not, as SQLAlchemy takes it: @ and /. Lengths
# are bounded, so that no text takes for ever.
_USERINFO = re.compile(
    r"(?<=://)(?P<user>[^\s/@:\"'`<>]{0,128}):(?!\d+(?:[/?#\s\"'`]|$))"
    r"(?P<password>[^\s@\"'`<>]{0,256}(?:@[^\s/@\"'`<>]{0,128}){0,4})@"
    r"|(?<=://)(?P<token>[^\s/@:\"'`<>]{1,512})@"
)
_QUERY = re.compile(
    rf"(?i)(?P<name>[?&;](?:{_NAMES}|sig|signature|x-amz-(?:signature|credential|security-token)|code)=)"
    r"(?P<value>[^\s&;\"'`<>]+)"
)
_PAIR = re.compile(
    rf"(?i)(?P<name>(?<![A-Za-z])[\w.-]{{0,64}}{_NAMES}=)(?P<value>[^\s&;,\"'`<>()]+|'[^']*'|\"[^\"]*\")"
)
_HEADER = re.compile(r"(?i)(?P<name>\b(?:bearer|basic)\s+)(?P<value>[A-Za-z0-9+/=_.~-]{12,})")

# ---- what may be one, by its name or its letters

_ASSIGNED = re.compile(
    rf"(?i)(?<![A-Za-z])(?P<name>[\w.-]{{0,64}}?{_NAMES})(?P<quote>[\"']?)\]?\s*(?:=>|:=|==?|:)\s*"
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s\"'#,;]+)"
)
_CANDIDATE = re.compile(r"[A-Za-z0-9+/=_~.\-]{20,}")
_PLACEHOLDER = re.compile(
    r"(?i)(?:x+|\*+|\.+|…+|-+|secret|pass(?:word)?|passwd|pwd|token|key|none|null|nil|true|false|str|int|bytes|bool|any|"
    r"auto|user|name|value|changeme|change[_-]?me|example|todo|your[\w-]*|my[_-]?\w*|dummy|redacted|"
    r"(?:the|a)[_-]\w+|(?-i:[A-Z][A-Z_]*[A-Z])|[a-z_]*(?:password|secret|token|key))"
)
_HEX_DIGESTS = (32, 40, 56, 64, 96, 128)
LONGEST_TOKEN = 1000
"""Letters; what is longer is a picture or a table, no key."""

LONGEST_LINE = 20_000
"""Letters of a line that are looked at for what may be a secret; those that are one are found anywhere."""


@dataclass(frozen=True)
class Finding:
    """Something in a text that looks like a secret."""

    line: int
    """from 1"""
    what: str
    start: int
    end: int
    """where it stands in the text"""


def is_secret_file(name: str) -> bool:
    """Return whether a file of this name, or in a folder of this name, is one that holds secrets."""
    path = PurePosixPath(name.lower())
    if any(part in SECRET_FOLDERS for part in path.parts[:-1]) and path.suffix != ".py":
        return True
    if any(fnmatchcase(path.name, pattern) for pattern in NOT_SECRET):
        return False
    return any(fnmatchcase(path.name, pattern) for pattern in SECRET_FILES)


def redacted(text: str) -> str:
    """Return a text without the passwords in its addresses, and without keys and tokens of known shapes, for whatever
    is shown, logged or kept."""
    if "://" in text:
        text = _USERINFO.sub(f"{MASK}@", text)
        text = _WEBHOOK.sub(rf"\1{MASK}", text)
    if "=" in text:
        text = _QUERY.sub(rf"\g<name>{MASK}", text)
        text = _PAIR.sub(lambda found: found[0] if _is_harmless(found["value"]) else found["name"] + MASK, text)
    if "PRIVATE KEY" in text:
        text = _KEY_BLOCK.sub(MASK, text)
    return _HEADER.sub(lambda found: found["name"] + MASK if _has_digit(found) else found[0], _TOKEN.sub(MASK, text))


def redacted_values(value: Any) -> Any:
    """Return what JSON can hold with every text in it `redacted`."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: redacted_values(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(each) for each in value]
    return value


def without_passwords(text: str) -> str:
    """Return a text with no name and password in its addresses; all else stays as it is."""
    return _USERINFO.sub(lambda found: found[0] if _is_open(found) else f"{MASK}@", text)


def find_secrets(text: str, name: str = "", *, shapes_alone: bool = False) -> Iterator[Finding]:
    """Yield what in a text looks like a secret, in the order in which it stands there, each place once.

    Args:
        name: of its file. In code a value without quotes is an expression, and no secret.
        shapes_alone: only what is a secret wherever it stands, as in bytes that are no text.
    """
    starts = [0, *(found.end() for found in re.finditer(r"\n", text))]
    seen = 0
    for number, start in enumerate(starts, 1):
        end = starts[number] - 1 if number < len(starts) else len(text)
        if ALLOWED in text[start:end] or end <= seen:
            continue
        found = list(_shapes(text, start, end))
        if not shapes_alone:
            code = name.endswith((".py", ".pyi", ".ipynb", ".js", ".ts"))
            found += _likely(text, start, end, code)
        found.sort(key=lambda one: one[0])  # where two begin at the same place, the surer one
        for begin, finish, what in found:
            if begin >= seen:
                yield Finding(number, what, begin, finish)
                seen = finish


def masked(text: str, name: str = "") -> str:
    """Return a text with every secret that `find_secrets` sees in it replaced."""
    parts, last = [], 0
    for found in find_secrets(text, name):
        parts += [text[last : found.start], MASK]
        last = found.end
    return "".join([*parts, text[last:]])


def _shapes(text: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    block = _KEY_BLOCK.search(text, start) if re.search(_KEY_BEGIN, text[start:end]) else None
    if block is not None and block.start() < end:
        yield block.start(), block.end(), "a private key"
    for found in _TOKEN.finditer(text, start, end):
        yield found.start(), found.end(), "an access token"
    for found in _WEBHOOK.finditer(text, start, end):
        if not _is_harmless(found[0].rpartition("/")[2]):
            yield found.start(), found.end(), "the address of a webhook"
    for found in _USERINFO.finditer(text, start, end):
        if found["password"] is not None and not _is_open(found):
            yield found.start(), found.end() - 1, "an address with a password"


def _likely(text: str, start: int, end: int, code: bool) -> Iterator[tuple[int, int, str]]:
    end = min(end, start + LONGEST_LINE)
    for found in _HEADER.finditer(text, start, end):
        if not _is_harmless(found["value"]) and _has_digit(found):
            yield found.start("value"), found.end("value"), "an access token"
    for found in _ASSIGNED.finditer(text, start, end):
        value = found["value"]
        quoted = value[:1] in "\"'"
        if (code and not quoted) or _is_harmless(value.strip("\"'")):
            continue
        yield found.start("value") + quoted, found.end("value") - quoted, f"the value of {found['name'][:40]}"
    for found in _CANDIDATE.finditer(text, start, end):
        if _is_random(found[0], text[max(start, found.start() - 24) : found.start()]):
            yield found.start(), found.end(), "a text as random as a key"


def _has_digit(found: "re.Match[str]") -> bool:
    return any(letter.isdigit() or letter == "=" for letter in found["value"])


def _is_open(found: "re.Match[str]") -> bool:
    """Whether the password of an address is a word of the docs, or is filled in later."""
    return found["password"] is None or _is_harmless(found["password"], 1)


def _is_harmless(value: str, shortest: int = 6) -> bool:
    value = value.strip("\"'")
    if (
        len(value) < shortest
        or _PLACEHOLDER.fullmatch(value.rpartition(":")[2])
        or re.search(r"[${}<>…]|%\(|%s|\*\*\*|\s", value)
    ):
        return True
    # a call, an index, or a member of something: an expression
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*[(\[].*", value) or re.fullmatch(r"[a-z_]+(?:\.[a-z_]+)+", value))


def _is_random(token: str, before: str) -> bool:
    """Whether a word is made as keys are: no digest, no identifier, no path, no words."""
    if len(token) > LONGEST_TOKEN or re.search(r"(?i)(?:sha\d+|md5|base64|digest|hash|integrity)[-:=,\s\"']*$", before):
        return False
    if token.startswith("AAAA") or re.match(r"(?i)sha\d+[-:=]", token):  # a public key of OpenSSH's, a digest
        return False
    if re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", token):
        return len(token) >= 24 and len(token) not in _HEX_DIGESTS and _entropy(token) > 3.0
    for part in re.split(r"[/.]" if "/" in token and "+" not in token else r"[.=]", token):
        kinds = [_letter(letter) for letter in part if letter not in "-_"]
        if len(kinds) < 18 or "0" not in kinds or re.fullmatch(r"[0-9a-fA-F_-]+", part):
            continue
        if "A" in kinds and "a" in kinds:
            if _changes(kinds) >= 0.3 and _entropy(part) >= 3.6:
                return True
        elif any(len(piece) >= 24 and _is_mixed(piece) for piece in re.split(r"[_-]", part)):
            return True
    return False


def _is_mixed(piece: str) -> bool:
    changes = _changes([_letter(letter) for letter in piece])
    return changes >= 0.25 and _entropy(piece) >= 3.5 and not re.fullmatch(r"[0-9a-fA-F]+|\d+", piece)


def _changes(kinds: list[str]) -> float:
    """How often a letter is of another kind than the one before it, but for capitals: seldom in words."""
    changes = sum(one != other and (one, other) != ("A", "a") for one, other in pairwise(kinds))
    return changes / (len(kinds) - 1)


def _letter(letter: str) -> str:
    return "0" if letter.isdigit() else "A" if letter.isupper() else "a" if letter.islower() else "-"


def _entropy(text: str) -> float:
    """Bits a letter."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
