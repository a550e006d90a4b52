"""Text files without columns of names: fastText's lines, texts and labels in two files, and files without a suffix."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import PurePosixPath
from typing import Any

from quickstudy.data.dataset import Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files
from quickstudy.ingest.importers.delimited import agreement, read_csv, read_tsv, told_delimiter
from quickstudy.ingest.importers.encoding import (
    UTF8,
    Encoding,
    decode,
    decoded_lines,
    encoding_of,
    said_encoding,
    told_encoding,
)
from quickstudy.ingest.importers.options import Note
from quickstudy.ingest.importers.records import Broken, Table

LABEL = "__label__"  # fastText's
_SUFFIXES = frozenset(
    ["", ".txt", ".in", ".text", ".texts", ".label", ".labels", ".train", ".valid", ".dev", ".test", ".data"]
)
_LOOKED_AT = 20_000  # lines
_ABOUT = frozenset(
    {"readme", "license", "licence", "copying", "notice", "authors", "changelog", "citation", "makefile", "dockerfile"}
)
_TEXT_WORDS = frozenset(
    {
        "text",
        "texts",
        "seq",
        "in",
        "sentence",
        "sentences",
        "utterance",
        "utterances",
        "data",
        "x",
        "query",
        "queries",
        "input",
    }
)
_LABEL_WORDS = frozenset(
    {"label", "labels", "intent", "intents", "class", "classes", "target", "targets", "topic", "topics", "y"}
)
_UNLABELLED = frozenset({"unsup", "unsupervised", "unlabeled", "unlabelled"})
_NAMING = frozenset({"mapping", "classes", "labels", "label_names", "class_names", "categories"})
"""What a file is called that says which name a number stands for."""


@dataclass(frozen=True)
class Pair:
    """Two files of which line for line one has the texts and the other the labels."""

    texts: str
    labels: str


def _stem(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(PurePosixPath(path).suffix).lower()


def could_be_plain(path: str) -> bool:
    """Return whether a file may hold lines of text, by its name."""
    name = PurePosixPath(path)
    return name.suffix.lower() in _SUFFIXES and _stem(path) not in _ABOUT


def texts_without_suffix(files: Files) -> list[str]:
    """Return the files without a suffix that hold texts and lie in folders, as those of 20 Newsgroups do."""
    named = [path for path in files.paths if "/" in path and not _suffix(path) and _stem(path) not in _ABOUT]
    return [path for path in named if _is_text(files, path)]


def _suffix(path: str) -> str:
    """Of a name such as ``49960`` or ``9.eml``; what is no word after the dot, as in ``msg.0001``, is none."""
    suffix = PurePosixPath(path).suffix
    return suffix if any(map(str.isalpha, suffix)) else ""


def _is_text(files: Files, path: str) -> bool:
    with files.open(path) as handle:
        head = handle.read(2048)
    return bool(head) and (head.startswith((b"\xff\xfe", b"\xfe\xff")) or all(byte >= 9 for byte in head))


def with_labels(paths: list[str], note: Note) -> list[str]:
    """Return of texts in class folders those that are examples, and tell which are not.

    What lies in ``unsup/``, as in aclImdb, has no label; and a README or a list of addresses is none of them.
    """
    kept = [path for path in paths if not _UNLABELLED & set(path.lower().split("/")[:-1])]
    if len(kept) == len(paths) or not kept:
        kept = paths
    else:
        names = sorted(
            {part for path in set(paths) - set(kept) for part in path.split("/")[:-1] if part in _UNLABELLED}
        )
        note(f"left out {len(paths) - len(kept):,} texts in {', '.join(names)}/, which have no label")
    deep = max((path.count("/") for path in kept), default=0)
    beside = [path for path in kept if path.count("/") < deep and is_about(path)]
    if beside and len(beside) < len(kept):
        note(f"ignored {len(beside)} texts beside the class folders ({', '.join(beside[:3])})")
        kept = [path for path in kept if path not in beside]
    return kept


def is_about(path: str) -> bool:
    """Return whether a file tells of the others, by its name: README.txt, classes.txt."""
    return _stem(path) in _ABOUT | _NAMING or _stem(path).startswith(("urls_", "readme"))


def text_of(files: Files, paths: list[str], reading: Reading, note: Note) -> Callable[[bytes], str]:
    """Return how the text in a file of its own is decoded.

    Args:
        files: of the source.
        paths: of the texts. Where one is not UTF-8, all of these tell their encoding together.
        reading: what was said.
        note: told which encoding it seems to be.
    """
    said, told = said_encoding(reading.encoding), None

    def decoded(content: bytes) -> str:
        nonlocal told
        own = said or (Encoding("utf-16") if content.startswith((b"\xff\xfe", b"\xfe\xff")) else Encoding(UTF8))
        try:
            return content.decode("utf-8-sig" if own.name == UTF8 else own.name)
        except UnicodeDecodeError as error:
            if own.name == UTF8 and said is None:
                if told is None:
                    told = told_encoding(_others(files, paths))
                    if told.guessed:
                        note(f"texts that are not UTF-8 seem to be {told.name.upper()}. Say otherwise by --encoding")
                if told.guessed:
                    return decode(content, told)
            where = f"byte {content[error.start]:#04x} at {error.start}"
            raise QuickstudyError(f"not {own.name.upper()} ({where})") from None

    return decoded


def _others(files: Files, paths: list[str]) -> Iterator[bytes]:
    """The files that are not UTF-8."""
    for path in paths:
        with files.open(path) as handle:
            content = handle.read(1 << 20)
        if not content.isascii():
            try:
                content.decode("utf-8")
            except UnicodeDecodeError as error:
                if error.end < len(content):  # else the piece ends within a character
                    yield content


# fastText


def fasttext_paths(files: Files) -> list[str]:
    """Return the files of which the lines begin with labels."""
    return [path for path in _plain_paths(files) if _begins_with_label(files, path)]


def _plain_paths(files: Files) -> list[str]:
    """Files that may hold lines, where they are few: else each is an example."""
    found = [path for path in files.paths if could_be_plain(path)]
    return found if len(found) <= 50 else []


def _begins_with_label(files: Files, path: str) -> bool:
    lines = [line for line in _first_lines(files, path, 20) if line.strip()]
    return bool(lines) and sum(line.startswith(LABEL) for line in lines) > len(lines) / 2


def _first_lines(files: Files, path: str, count: int) -> list[str]:
    with files.open(path) as handle:
        head = handle.read(1 << 20)
        if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
            return []
        return list(islice(decoded_lines(handle, files.place(path), encoding_of(handle), universal=False), count))


def fasttext_table(files: Files, path: str, reading: Reading, stack: ExitStack) -> Table:
    """Read lines such as ``__label__billing __label__urgent I was charged twice``."""
    handle = stack.enter_context(files.open(path))
    place = files.place(path)
    encoding = encoding_of(handle, reading.encoding)

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, line in enumerate(decoded_lines(handle, place, encoding, universal=False), 1):
            if not line.strip():
                continue
            labels, text = [], line.strip()
            while text.startswith(LABEL):
                label, _, text = text.partition(" " if "\t" not in text.split(" ")[0] else "\t")
                labels.append(label.removeprefix(LABEL).rstrip(","))
                text = text.lstrip()
            if not labels and reading.label is None:
                yield f"line {number}", Broken(f"the line begins with no {LABEL}")
            else:
                yield f"line {number}", {"text": text, "label": labels}

    all_rows = rows()
    held = list(islice(all_rows, _LOOKED_AT))
    several = any(len(row["label"]) > 1 for _, row in held if not isinstance(row, Broken))

    def one_each() -> Iterator[tuple[str, dict[str, Any]]]:
        for at, row in chain(held, all_rows):
            if not several and not isinstance(row, Broken) and len(row["label"]) == 1:
                row["label"] = row["label"][0]
            yield at, row

    return Table(
        ["text", "label"],
        one_each(),
        samples={"label": [] if several else ""},
        encoding=encoding,
        content=("text",),
        targets=("label",),
        several=several,
        about="fastText's lines",
    )


# Two files


def pairs_of(files: Files) -> list[Pair]:
    """Return the files that belong together: ``seq.in`` and ``label``, ``X_text.txt`` and ``X_labels.txt``.

    Raises:
        QuickstudyError: two that do have not as many lines.
    """
    texts: dict[tuple[str, ...], list[str]] = {}
    labels: dict[tuple[str, ...], list[str]] = {}
    for path in _plain_paths(files):
        words = _words(path)
        kept = tuple(word for word in words if word not in _LABEL_WORDS)
        if len(kept) < len(words):
            labels.setdefault((_folder(path), *kept), []).append(path)
        elif any(word in _TEXT_WORDS for word in words):
            key = tuple(word for word in words if word not in _TEXT_WORDS)
            texts.setdefault((_folder(path), *key), []).append(path)
        else:
            texts.setdefault((_folder(path), *words), []).append(path)
    pairs: list[Pair] = []
    for key in sorted(texts.keys() & labels.keys()):
        pair = _matched(files, texts[key], labels[key])
        if pair is not None:
            pairs.append(pair)
    return pairs


def _words(path: str) -> list[str]:
    name = PurePosixPath(path).name.lower().removesuffix(".txt")
    for sign in "-. ":
        name = name.replace(sign, "_")
    return [word for word in name.split("_") if word]


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _matched(files: Files, texts: list[str], labels: list[str]) -> Pair | None:
    counts = {path: _count_lines(files, path) for path in [*texts, *labels]}
    found = [Pair(a, b) for a in texts for b in labels if counts[a] == counts[b] and counts[a] > 1]
    if found:
        return found[0]
    likely = [path for path in labels if _stem(path) not in _NAMING or len(labels) == 1]
    if len(texts) == 1 and len(likely) == 1 and 2 * counts[likely[0]] > counts[texts[0]]:
        a, b = texts[0], likely[0]
        what = f"{a} has {counts[a]:,} lines and {b} has {counts[b]:,}, so that they cannot belong line to line"
        raise QuickstudyError(what, where=files.source, fix="Mend them, or make one table of them")
    return None


def _count_lines(files: Files, path: str) -> int:
    """Lines up to the last that is not blank."""
    with files.open(path) as handle:
        lines = decoded_lines(handle, files.place(path), encoding_of(handle), universal=False)
        return max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)


def pair_table(files: Files, pair: Pair, reading: Reading, stack: ExitStack) -> Table:
    """Read two files line by line."""
    texts = stack.enter_context(files.open(pair.texts))
    labels = stack.enter_context(files.open(pair.labels))
    encoding = encoding_of(texts, reading.encoding)
    own = encoding_of(labels, reading.encoding)

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        both = zip_longest(
            decoded_lines(texts, files.place(pair.texts), encoding, universal=False),
            decoded_lines(labels, files.place(pair.labels), own, universal=False),
        )
        for number, (text, label) in enumerate(both, 1):
            if (text is None or not text.strip()) and (label is None or not label.strip()):
                continue
            yield f"line {number}", {"text": (text or "").strip("\r\n"), "label": (label or "").strip()}

    return Table(
        ["text", "label"],
        rows(),
        encoding=encoding,
        content=("text",),
        targets=("label",),
        about="two files, line by line",
    )


# Names behind numbers


def names_behind(files: Files, numbers: Counter[str]) -> tuple[str, dict[str, str]] | None:
    """Return the file that says which name each of some numbers stands for, and these names; None where none does.

    It has a name a line, for 1, 2 … or 0, 1 …, or a number and a name in each.
    """
    if not numbers or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    for path in files.paths:
        if _stem(path) not in _NAMING or not could_be_plain(path):
            continue
        lines = [line.strip() for line in _first_lines(files, path, 10_000)]
        while lines and not lines[-1]:
            lines.pop()
        names = _numbered(lines) or _in_order(lines, numbers)
        if names is not None and set(numbers) <= set(names):
            return path, names
    return None


def _numbered(lines: list[str]) -> dict[str, str] | None:
    parts = [line.split("\t") if "\t" in line else line.split(None, 1) for line in lines]
    if not parts or not all(len(part) > 1 and part[0].isdigit() for part in parts):
        return None
    return {part[0]: part[-1].strip() for part in parts}


def _in_order(lines: list[str], numbers: Counter[str]) -> dict[str, str] | None:
    if not all(lines) or len(set(lines)) != len(lines):
        return None
    begin = 0 if "0" in numbers else 1
    return {str(number): name for number, name in enumerate(lines, begin)}


# Tables without a telling suffix


def delimited_paths(files: Files) -> list[str]:
    """Return the files of lines that have the same number of fields each."""
    paths = [path for path in _plain_paths(files) if _stem(path) not in _NAMING]
    if len({_folder(path) for path in paths}) > 1:
        return []  # then it is folders that say something
    return [path for path in paths if _is_delimited(files, path)]


def _is_delimited(files: Files, path: str) -> bool:
    lines = [line for line in _first_lines(files, path, 200) if line.strip()]
    if len(lines) < 2:
        return False
    delimiter = told_delimiter(lines)
    # Sentences have as many commas by chance, and tabs never.
    return agreement(lines, delimiter) >= (1.0 if delimiter == "," else 0.9)


def delimited_table(files: Files, path: str, reading: Reading, stack: ExitStack) -> Table:
    """Read a table that is called .txt."""
    handle, place = stack.enter_context(files.open(path)), files.place(path)
    tabs = reading.delimiter is None and told_delimiter(_first_lines(files, path, 200), reading) == "\t"
    return (read_tsv if tabs else read_csv)(handle, place, reading)


# Lines


def line_paths(files: Files) -> list[str]:
    """Return the text files of which each line may be an example."""
    return [path for path in _plain_paths(files) if not is_about(path) and _is_text(files, path)]


def lines_table(files: Files, path: str, reading: Reading, stack: ExitStack) -> Table:
    """Read a text file as a table of its lines; blank ones are skipped."""
    handle, place = stack.enter_context(files.open(path)), files.place(path)
    encoding = encoding_of(handle, reading.encoding)

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, line in enumerate(decoded_lines(handle, place, encoding, universal=False), 1):
            if line.strip():
                yield f"line {number}", {"text": line.strip()}

    return Table(["text"], rows(), encoding=encoding, content=("text",))
