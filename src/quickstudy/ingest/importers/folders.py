"""Examples as single files: the path says the class, and where it wants the group and the domain.

CLASS/file                    one class a folder
GROUP/CLASS/file              classes in groups; the class is then called GROUP/CLASS
{class}_{speaker}_{}          a pattern, for anything else
"""

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from quickstudy.data.dataset import Modality, Reading
from quickstudy.data.media import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.plain import text_of, texts_without_suffix
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.several import split
from quickstudy.kinds.names import tidy
from quickstudy.kinds.targets import PLAIN, targets_of

SUFFIXES = {"image": IMAGE_SUFFIXES, "audio": AUDIO_SUFFIXES, "text": frozenset({".txt"})}
# Folders by these names, as train, train2017 or bounding_box_test, hold a publisher's split of the examples of every
# class: they are no groups and, where nobody says so by --pattern '{class}/{}', no classes either.
_SPLIT = frozenset({"train", "training", "trn", "valid", "validation", "val", "dev", "test", "testing", "tst", "eval"})
_BESIDE = re.compile(  # a word in such a name, or in that of a folder beside them
    r"[a-z]|all|audio|bbox|bounding|box|boxes|clips|crops|data|dataset|examples|files?|full|gallery|gt|images?|imgs?|jpegimages"
    r"|(un)?labell?ed|multi|part|partition|photos|pictures|query|recordings|samples|(un)?seen|set|small|sounds|split"
    r"|subset|txt|wavs?"
)


@dataclass(frozen=True)
class Named:
    """What a path says."""

    label: Any
    """Of the target, as a cell of a table would; None where nothing."""
    group: str | None
    domain: str | None


Naming = Callable[[str], Named]


def media_paths(files: Files, modality: Modality) -> list[str]:
    """The files whose suffix fits the modality; of texts, where none has one, those without a suffix."""
    found = [path for path in files.paths if PurePosixPath(path).suffix.lower() in SUFFIXES[modality]]
    return found if found or modality != "text" else texts_without_suffix(files)


def check_lost(files: Files, read: list[str], wanted: Wanted) -> None:
    """Tell which files of a folder are not read, and refuse to lose a class that way.

    Args:
        files: of the source.
        read: the paths of those that are read.

    Raises:
        QuickstudyError: a folder beside those of classes holds files, and not one that is read.
    """
    others = sorted(set(files.paths) - set(read))
    if not others:
        return
    folders = {str(PurePosixPath(path).parent) for path in read}
    beside = {str(PurePosixPath(folder).parent) for folder in folders if folder != "."}
    lost: dict[str, Counter[str]] = {}
    for path in others:
        parts = path.split("/")
        for deep in range(1, len(parts)):
            folder = "/".join(parts[:deep])
            above = "/".join(parts[: deep - 1]) or "."
            if above in beside and not any(one == folder or one.startswith(f"{folder}/") for one in folders):
                lost.setdefault(folder, Counter())[PurePosixPath(path).suffix.lower() or "no suffix"] += 1
                break
    for folder, suffixes in sorted(lost.items()):
        if (
            wanted.labelled
            and not all(map(_ABOUT.fullmatch, suffixes))
            and folder.split("/")[-1] not in wanted.reading.exclude
        ):
            there = ", ".join(f"{count} × {suffix}" for suffix, count in suffixes.most_common(3))
            what = f"none of its files can be read ({there}), so that it would be lost"
            fix = "Convert them, as by `ffmpeg -i OLD.m4a NEW.wav` or to .png, or take the folder away"
            raise QuickstudyError(what, where=files.place(folder), fix=fix)
    suffixes = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in others)
    there = ", ".join(f"{count} × {suffix}" for suffix, count in suffixes.most_common(4))
    some = Counter(str(PurePosixPath(path).parent) for path in others if str(PurePosixPath(path).parent) in folders)
    within = f", of {_few([f'{folder} ({count})' for folder, count in some.most_common()])}" if some else ""
    wanted.note(f"ignored {len(others)} other files ({there}){within}")


# Suffixes of what lies beside examples and is about them.
_ABOUT = re.compile(
    r"\.(bib|csv|db|docx?|git.*|gz|html?|ipynb|jsonl?|licen[cs]e|lst|mat|md|md5|names|np[yz]|pbtxt|pdf|pkl|py|rs?t|rtf|sh"
    r"|sha1|sha256|tar|tex|toml|tsv|txt|xlsx?|xml|ya?ml|zip)"
)


def read_folder(files: Files, paths: list[str], modality: Modality, wanted: Wanted) -> Rows:
    """Read the files of a folder or .zip, each one an example.

    Raises:
        QuickstudyError: for the layout, or a kind whose targets no path can say. What is wrong with single files is in
            ``Rows.bad``.
    """
    rows = Rows(modality, wanted.kind or PLAIN)
    targets, separator = targets_of(rows.kind), wanted.reading.separator
    if wanted.labelled and targets.folders is None:
        what = f"the names of files and folders cannot say targets of kind {rows.kind}"
        raise QuickstudyError(what, where=files.source, fix="Import a table")
    naming = _by_pattern(wanted, rows) if wanted.reading.pattern is not None else _by_levels(files, paths, wanted, rows)
    decoded = text_of(files, paths, wanted.reading, wanted.note)
    for done, path in enumerate(paths):
        try:
            named = naming(path)
            label = split(named.label, separator)
            target = None if label is None else targets.read(label, "name of its folder or class")
            content = files.read(path)
            text = decoded(content) if modality == "text" else None
            rows.check_content(content if text is None else text)
        except QuickstudyError as error:
            if error.where not in (None, files.place(path)):
                raise  # about the whole source, not about this file
            rows.refuse(files.place(path), error)
        else:
            rows.add(content if text is None else text, target, path, path)
            if named.group is not None:
                rows.groups.append(tidy(named.group))
            if named.domain is not None:
                rows.domains.append(tidy(named.domain))
        wanted.progress(done + 1, len(paths))
    return rows


# Folder levels


def common_top(paths: list[str]) -> int:
    """How many leading folders all paths share, leaving each at least one folder of its own."""
    shortest = min(path.count("/") for path in paths)
    top = 0
    while top < shortest - 1 and len({path.split("/")[top] for path in paths}) == 1:
        top += 1
    return top


def _by_levels(files: Files, paths: list[str], wanted: Wanted, rows: Rows) -> Naming:
    deep = [path for path in paths if "/" in path]
    # A picture beside the folders of the classes is one bad example; where all lie so, it is another layout.
    stray = frozenset(paths) - frozenset(deep) if wanted.labelled and len(deep) > len(paths) / 2 else frozenset()
    paths = deep if stray else paths
    depths = {path.count("/"): path for path in reversed(paths)}
    spell = targets_of(rows.kind).folders
    if spell is None or (not wanted.labelled and (0 in depths or len(depths) > 1)):
        return lambda path: Named(None, None, None)
    skip, depth = _depth(files, paths, depths, wanted)
    label, group, domain = _roles(wanted.reading, depth)
    says = {path.split("/")[skip + level] for path in paths for level in label[-1:]}
    if wanted.labelled and say_splits(says):
        what = f"{_few(says)} hold parts of a publisher's split, and nothing says the class of a file"
        fix = (
            "Put each class into a folder of its own, add a table that names files and classes, or say how names are "
            "made: --pattern '{class}_{}', or '{class}/{}' where these are the classes"
        )
        raise QuickstudyError(what, where=files.source, fix=fix)
    if not wanted.labelled and say_splits(says):
        return lambda path: Named(None, None, None)
    rows.group_word, rows.group_rule = "folder", None if group is None else str(group)
    rows.domain_word, rows.domain_rule = (None, None) if domain is None else ("folder", str(domain))
    rows.levels = depth

    def name(path: str) -> Named:
        if path in stray:
            raise QuickstudyError("is in no class folder")
        parts = path.split("/")[skip:]
        return Named(
            spell([parts[level] for level in label]),
            None if group is None else parts[group],
            None if domain is None else parts[domain],
        )

    return name


def _depth(files: Files, paths: list[str], depths: dict[int, str], wanted: Wanted) -> tuple[int, int]:
    """How many leading folders say nothing, and how many are left.

    Args:
        files: of the source.
        paths: of the examples.
        depths: how many folders are above them, with an example of each.
        wanted: of the source.
    """
    fix = "Arrange them as CLASS/file or GROUP/CLASS/file, or say how the names are made by --pattern"
    if 0 in depths:
        raise QuickstudyError("the file is in no class folder", where=files.place(depths[0]), fix=fix)
    if len(depths) > 1:
        one, other = (depths[depth] for depth in sorted(depths)[:2])
        raise QuickstudyError(f"{one} and {other} are not equally deep in folders", where=files.source, fix=fix)
    levels = wanted.reading.levels
    return _top(paths, min(depths), wanted) if levels is None else (_skipped(files, paths, min(depths), levels), levels)


def _roles(reading: Reading, depth: int) -> tuple[list[int], int | None, int | None]:
    """Which of the folder levels say the class, the group and the domain."""
    domain = _level(reading.domain, depth, "--domain")
    left = [level for level in range(depth) if level != domain]
    if not left:
        raise QuickstudyError("no folder level is left for the class", where=f"--domain {reading.domain}")
    group = left[0] if reading.group is None and len(left) > 1 else None
    if reading.group is not None and not _names_no_level(reading.group):
        group = _level(reading.group, depth, "--group")
        if group == domain:
            raise QuickstudyError("group and domain are the same folder level", where=f"--group {group}")
    # GROUP/CLASS: equal names in two alphabets are two classes. Were the group inside the class (CLASS/GROUP/file)
    # the class would be the same in all of them.
    return [level for level in left if level != group or level == left[0]], group, domain


def _top(paths: list[str], deep: int, wanted: Wanted) -> tuple[int, int]:
    """How many leading folders say nothing, and how many are left."""
    skip = common_top(paths)
    first = {path.split("/")[skip] for path in paths}
    depth = deep - skip
    if depth > 1 and len(first) > 1 and say_splits(first):
        wanted.note(f"joined {', '.join(sorted(first))}: classes, not examples, are held out here (see --split)")
        skip, depth = skip + 1, depth - 1
    return skip, depth


def _skipped(files: Files, paths: list[str], deep: int, levels: int) -> int:
    """How many leading folders say nothing, where it is known how many do say something."""
    kind = {1: "CLASS/file", 2: "GROUP/CLASS/file"}.get(levels, f"{levels} folders and then the file")
    skip = deep - levels
    for level in range(skip):
        names = {path.split("/")[level] for path in paths}
        if len(names) > 1 and not say_splits(names):
            what = f"has {deep} levels of folders and not {levels}, for example {paths[0]}"
            raise QuickstudyError(what, where=files.source, fix=f"Arrange them as the dataset was read: {kind}")
    if skip < 0:
        what = f"the files are in {deep} folders and not in {levels}, for example {paths[0]}"
        raise QuickstudyError(what, where=files.source, fix=f"Arrange them as the dataset was read: {kind}")
    return skip


def say_splits(names: Collection[str]) -> bool:
    """Return whether names of folders say splits: all of them one, or what lies beside it, as query and gallery; or one
    name with different splits in its place, as 20news-bydate-train and 20news-bydate-test."""
    words = [frozenset(re.findall("[a-z]+", name.lower())) for name in names]
    if not any(one & _SPLIT for one in words):
        return False
    if all(one and all(word in _SPLIT or _BESIDE.fullmatch(word) for word in one) for one in words):
        return True
    rests = {one - _SPLIT for one in words}
    return len(words) > 1 and len(rests) == 1 and all(one & _SPLIT for one in words)


def _few(names: Collection[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (", …" if len(listed) > 4 else "")


def _names_no_level(group: str) -> bool:
    return group in ("class", "none") or group.endswith(".json")


def _level(value: str | None, depth: int, option: str) -> int | None:
    if value is None:
        return None
    if not value.isdecimal() or int(value) >= depth:
        known = ", ".join(map(str, range(depth)))
        what = f"no folder level {value!r}"
        raise QuickstudyError(what, where=option, fix=f"The folders above the files are levels {known} from the top")
    return int(value)


# Patterns

_FIELD = re.compile(r"\{([a-z_]*)(?::([1-9][0-9]?))?\}")
_EXAMPLE = "An example: --pattern '{class}_{speaker}_{}' --domain speaker"


def compile_pattern(pattern: str) -> tuple[re.Pattern[str], int]:
    """A pattern as a regular expression for the end of a path without its suffix, and how many names it takes.

    ``{class}`` is a field, ``{}`` one that is not kept, ``{speaker:8}`` one of eight characters; every field else
    is as short as can be and none contains a slash. A pattern with slashes names folders too.

    Raises:
        QuickstudyError: braces that are no field, a field twice, no ``{class}``.
    """
    suffix = PurePosixPath(pattern).suffix
    bare = pattern.removesuffix(suffix) if suffix.lower() in frozenset().union(*SUFFIXES.values()) else pattern
    names = [match[1] for match in _FIELD.finditer(bare) if match[1]]
    if "{" in _FIELD.sub("", bare) or "}" in _FIELD.sub("", bare):
        what = "a brace that is no field such as {class}, {speaker:8} or {}"
        raise QuickstudyError(what, where=f"--pattern {pattern!r}", fix=_EXAMPLE)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise QuickstudyError(f"the field {twice[0]!r} twice", where=f"--pattern {pattern!r}", fix=_EXAMPLE)
    if "class" not in names:
        raise QuickstudyError("no field {class}", where=f"--pattern {pattern!r}", fix=_EXAMPLE)
    expression, at = "", 0
    for match in _FIELD.finditer(bare):
        expression += re.escape(bare[at : match.start()])
        body = f"[^/]{{{match[2]}}}" if match[2] else "[^/]+?"
        expression += f"(?P<{match[1]}>{body})" if match[1] else f"(?:{body})"
        at = match.end()
    return re.compile(expression + re.escape(bare[at:]) + r"\Z"), bare.count("/") + 1


def _by_pattern(wanted: Wanted, rows: Rows) -> Naming:
    assert wanted.reading.pattern is not None
    expression, depth = compile_pattern(wanted.reading.pattern)
    fields = set(expression.groupindex)
    group = _pattern_field(wanted.reading.group, fields, "group")
    domain = _pattern_field(wanted.reading.domain, fields, "domain")
    rows.group_word, rows.group_rule = group or "group", group
    rows.domain_word = rows.domain_rule = domain

    def name(path: str) -> Named:
        stem = path.removesuffix(PurePosixPath(path).suffix)
        match = expression.match("/".join(stem.split("/")[-depth:]))
        if match is None:
            raise QuickstudyError(f"the name does not fit --pattern {wanted.reading.pattern!r}")
        return Named(match["class"], match[group] if group else None, match[domain] if domain else None)

    return name


def _pattern_field(value: str | None, fields: set[str], default: str) -> str | None:
    if value is None or (default == "group" and _names_no_level(value)):
        return default if value is None and default in fields else None
    if value not in fields:
        where = f"--{default} {value}"
        raise QuickstudyError("no such field", where=where, fix=f"The pattern has {', '.join(sorted(fields))}")
    return value
