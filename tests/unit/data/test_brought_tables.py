"""Tables and text files as programs, publishers and people write them: what is in the dataset, or the one line."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quickstudy.data.dataset import Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source, read_queries
from quickstudy.kinds.targets import targets_of

Rows = list[tuple[str, Any]]


@dataclass
class Case:
    """Files, how one of them (or the folder) is imported, and what comes of it."""

    files: dict[str, str | bytes]
    rows: Rows | None = None
    """None: it is refused."""
    source: str = ""
    """Of the files the one that is imported; else the folder, or the only file."""
    options: dict[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    """Parts of the notes, or of the refusal."""
    untold: tuple[str, ...] = ()


def rows_of(dataset: Dataset) -> Rows:
    return sorted(zip(dataset.raw(), targets_of(dataset.info.kind).of(dataset, np.arange(len(dataset))), strict=True))


def check(case: Case, write: Callable[..., Path]) -> None:
    folder = write(case.files)
    only = next(iter(case.files)) if len(case.files) == 1 else ""
    source = folder / (case.source or only)
    notes: list[str] = []
    try:
        dataset = Dataset(*import_source(source, "mine", ImportOptions(**case.options), note=notes.append))
    except QuickstudyError as error:
        assert case.rows is None, error
        notes = [str(error)]
        assert "\n" not in notes[0]
    else:
        assert case.rows is not None, rows_of(dataset)
        assert rows_of(dataset) == sorted(case.rows)
    told = "\n".join(notes)
    for part in case.told:
        assert part in told
    for part in case.untold:
        assert part not in told


TEXTS = {
    "billing": ["I was charged twice for it", "the invoice shows a wrong sum", "please refund the payment"],
    "delivery": ["the parcel has not arrived yet", "where is my shipment now", "the courier left it in the rain"],
}
ROWS: Rows = [(text, label) for label, texts in TEXTS.items() for text in texts]


def table(*lines: str, end: str = "\n") -> str:
    return end.join([*lines, ""])


def csv(delimiter: str = ",", header: str | None = "text{d}label", end: str = "\n", swap: bool = False) -> str:
    lines = [delimiter.join((label, text) if swap else (text, label)) for text, label in ROWS]
    return table(*([] if header is None else [header.format(d=delimiter)]), *lines, end=end)


def records() -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in ROWS]


# Delimited


LONG = "harbour " * 20_000
CAFE = [(f"{text} – café £5", label) for text, label in ROWS]


def in_encoding(name: str, rows: Rows) -> bytes:
    return table("text,label", *(f"{text},{label}" for text, label in rows)).encode(name)


RUSSIAN: Rows = [
    ("где моя посылка", "доставка"),
    ("верните деньги пожалуйста", "оплата"),
    ("курьер не пришёл", "доставка"),
]
JAPANESE: Rows = [("荷物はどこですか", "配送"), ("返金してください", "支払い"), ("まだ届いていません", "配送")]
CHINESE: Rows = [("我的包裹在哪里", "配送"), ("请退款给我", "付款"), ("还没有收到货物", "配送")]
KOREAN: Rows = [("내 소포는 어디에 있습니까", "배송"), ("환불해 주세요", "결제"), ("아직 도착하지 않았습니다", "배송")]
POLISH: Rows = [
    ("Gdzie jest moja paczka żółta", "dostawa"),
    ("Proszę o zwrot pieniędzy", "płatność"),
    ("Źle", "dostawa"),
]

DELIMITED = {
    "lines that end in CR": Case({"t.csv": csv(end="\r")}, ROWS),
    "CR, with a line feed in a cell": Case({"t.csv": 'text,label\r"a\nb",x\rc,y\r'}, [("a\nb", "x"), ("c", "y")]),
    "CR in a TSV": Case({"t.tsv": csv("\t", end="\r")}, ROWS),
    "CR in JSON Lines": Case({"t.jsonl": "\r".join(map(json.dumps, records()))}, ROWS),
    "CRLF": Case({"t.csv": csv(end="\r\n")}, ROWS),
    "Excel's sep": Case({"t.csv": "sep=;\r\n" + csv(";", end="\r\n")}, ROWS),
    "Excel's sep, after a mark, of a bar": Case({"t.csv": "\ufeffSEP=|\n" + csv("|")}, ROWS),
    "Excel's sep, quoted": Case({"t.csv": '"sep=\t"\n' + csv("\t")}, ROWS),
    "the lines after sep are counted from the first": Case(
        {"t.csv": "sep=;\ntext;label\na;x\n;y\nb;y\n"}, told=("t.csv, line 4: the text is empty",)
    ),
    "bars": Case({"t.csv": csv("|")}, ROWS),
    "tabs in a .csv": Case({"t.csv": csv("\t")}, ROWS),
    "commas in a .tsv": Case({"t.tsv": csv()}, ROWS),
    "semicolons, with commas in the header": Case(
        {"t.csv": "text, as written, by them;label\n" + csv(";", header=None)},
        ROWS,
        options={"content": "text, as written, by them"},
    ),
    "bars, with commas in the texts": Case(
        {"t.csv": table("text|label", "well, then, no|x", "yes, sir|y", "a, b, c|x")},
        [("well, then, no", "x"), ("yes, sir", "y"), ("a, b, c", "x")],
    ),
    "a delimiter that is said": Case({"t.csv": csv("^")}, ROWS, options={"delimiter": "^"}),
    "a delimiter that is none": Case(
        {"t.csv": csv()}, options={"delimiter": "ab"}, told=("--delimiter: 'ab' is not a",)
    ),
    "tab as a word": Case({"t.csv": csv("\t")}, ROWS, options={"delimiter": "tab"}),
    "a comma at the end of every line": Case({"t.csv": csv().replace("\n", ",\n")}, ROWS),
    "a comma at the end of every row": Case({"t.csv": "text,label\n" + csv(header=None).replace("\n", ",\n")}, ROWS),
    "a comma at the end of the header": Case({"t.csv": csv(header="text,label,,")}, ROWS),
    "columns without names": Case(
        {"t.csv": "v1,v2,,,\n" + csv(swap=True, header=None).replace("\n", ",,,\n")},
        ROWS,
        told=(
            "read 'v2' as the text and 'v1' as the label, by what they hold. Say otherwise by --text COLUMN, --label",
        ),
    ),
    "a text of many characters": Case({"t.csv": csv() + f"{LONG},x\n"}, [*ROWS, (LONG, "x")]),
    "a text of many characters, quoted": Case({"t.csv": csv() + f'"{LONG}",x\n'}, [*ROWS, (LONG, "x")]),
    "a text of many characters in a TSV": Case({"t.tsv": csv("\t") + f"{LONG}\tx\n"}, [*ROWS, (LONG, "x")]),
    "a stray quote": Case(
        {"t.csv": csv() + '"he said "no" and left",billing\nlast,x\n'},
        told=("t.csv, line 8: the row cannot be read, its quotes do not match", "--skip-bad"),
    ),
    "a stray quote, left out": Case(
        {"t.csv": csv() + '"he said "no" and left",billing\nlast,x\n'},
        [*ROWS, ("last", "x")],
        options={"skip_bad": True},
        told=("left out 1 bad examples of 8",),
    ),
    "a quote that never closes": Case(
        {"t.csv": csv() + '"open,billing\n' + table(*(f"row {i},z" for i in range(50)))},
        [*ROWS, *((f"row {i}", "z") for i in range(50))],
        options={"skip_bad": True},
        told=("line 8: the row cannot be read, its quotes do not match",),
    ),
    "a quote that never closes, before one that does": Case(
        {"t.csv": csv() + '"open,billing\nnext,x\n"quoted, one",y\n'},
        [*ROWS, ("next", "x"), ("quoted, one", "y")],
        options={"skip_bad": True},
    ),
    "a quote that never closes, after much text": Case(
        {"t.csv": csv() + f'"open,billing\n{LONG},x\n{LONG}b,x\n'},
        [*ROWS, (LONG, "x"), (f"{LONG}b", "x")],
        options={"skip_bad": True},
    ),
    "two quotes that never close": Case(
        {"t.csv": '"open,x\n'.join(["text,label\n", "a,x\n", "b,y\n"])},
        [("a", "x"), ("b", "y")],
        options={"skip_bad": True},
        told=("left out 2 bad examples of 4",),
    ),
    "a byte that is none": Case(
        {"t.csv": csv().encode() + b"caf\xe9,x\n"},
        told=("t.csv, line 8: the text is not UTF-8 (byte 0xe9)", "--encoding", "--skip-bad"),
    ),
    "bytes that are none in UTF-8": Case(
        {"t.csv": "text,label\nGrüße,x\nMüller,y\n".encode() + b"caf\xe9,x\n\xe9t\xe9,y\n"},
        [("Grüße", "x"), ("Müller", "y")],
        options={"skip_bad": True},
        told=("left out 2 bad examples of 4", "line 4: the text is not UTF-8 (byte 0xe9)"),
    ),
    "a byte that is none in a label": Case(
        {"t.csv": csv().encode() + b"more,caf\xe9\n"}, told=("line 8: the label is not UTF-8 (byte 0xe9)",)
    ),
    "CP1252": Case({"t.csv": in_encoding("cp1252", CAFE)}, CAFE, told=("t.csv is not UTF-8 and seems to be CP1252",)),
    "CP1252, said": Case(
        {"t.csv": in_encoding("cp1252", CAFE)}, CAFE, options={"encoding": "cp1252"}, untold=("seems to be",)
    ),
    "Mac Roman": Case({"t.csv": in_encoding("mac-roman", CAFE)}, CAFE),
    "CP1250": Case({"t.csv": in_encoding("cp1250", POLISH)}, POLISH),
    "CP1251": Case({"t.csv": in_encoding("cp1251", RUSSIAN)}, RUSSIAN),
    "KOI8-R": Case({"t.csv": in_encoding("koi8-r", RUSSIAN)}, RUSSIAN),
    "Shift-JIS": Case({"t.csv": in_encoding("shift-jis", JAPANESE)}, JAPANESE),
    "EUC-JP": Case({"t.csv": in_encoding("euc-jp", JAPANESE)}, JAPANESE),
    "GBK": Case({"t.csv": in_encoding("gbk", CHINESE)}, CHINESE),
    "EUC-KR": Case({"t.csv": in_encoding("euc-kr", KOREAN)}, KOREAN),
    "UTF-16": Case({"t.csv": csv("\t").encode("utf-16")}, ROWS),
    "UTF-16, the other way round, without a mark": Case({"t.csv": csv().encode("utf-16-be")}, ROWS),
    "UTF-16 of JSON Lines": Case({"t.jsonl": table(*map(json.dumps, records())).encode("utf-16")}, ROWS),
    "UTF-16 of JSON": Case({"t.json": json.dumps(records()).encode("utf-16")}, ROWS),
    "UTF-32": Case({"t.csv": csv().encode("utf-32")}, ROWS),
    "an encoding that is none": Case(
        {"t.csv": csv()}, options={"encoding": "klingon"}, told=("--encoding: no encoding 'klingon'",)
    ),
    "an encoding that is no text": Case(
        {"t.csv": csv()}, options={"encoding": "base64"}, told=("--encoding: no encoding",)
    ),
    "empty rows below the last": Case({"t.csv": csv() + ",\n,\n"}, ROWS),
    "two other columns of one name": Case(
        {"t.csv": csv(header="text,label,note,note").replace("ing\n", "ing,,\n").replace("ery\n", "ery,,\n")}, ROWS
    ),
    "UTF-16 with a mark, said without one": Case(
        {"t.csv": csv().encode("utf-16")}, ROWS, options={"encoding": "utf-16-le"}
    ),
    "a sheet": Case({"t.xlsx": b"PK\3\4"}, told=("Save the sheet as CSV",)),
    "two columns of one name": Case({"t.csv": csv(header="text,text")}, told=("two columns are named 'text'",)),
}


@pytest.mark.parametrize("name", DELIMITED)
def test_delimited(write, name):
    check(DELIMITED[name], write)


# Columns that are told from what they hold


MANY: Rows = [(f"{text}, number {i}", label) for i in range(4) for text, label in ROWS]


def rows_as(*order: int, delimiter: str = "\t", rows: Rows = MANY, number: Callable[[int], str] = str) -> str:
    lines = []
    for i, (text, label) in enumerate(rows):
        cells = (text, label, number(i))
        lines.append(delimiter.join(cells[place] for place in order))
    return table(*lines)


COLUMNS = {
    "no header, label first": Case(
        {"t.tsv": rows_as(1, 0)},
        MANY,
        told=("the table has no header: read column 2 as the text and column 1 as the label", "--header if its first"),
    ),
    "no header, text first": Case(
        {"t.tsv": rows_as(0, 1)}, MANY, told=("column 1 as the text and column 2 as the label",)
    ),
    "no header, with numbers of rows": Case({"t.tsv": rows_as(2, 1, 0)}, MANY),
    "no header, said": Case(
        {"t.tsv": "billing\tthe first of all\nx\ta\ny\tb\nx\tc\n"}, None, options={"header": False}
    ),
    "no header, all said": Case(
        {"t.tsv": "billing\tthe first of all\nx\ta\ny\tb\n"},
        [("the first of all", "billing"), ("a", "x"), ("b", "y")],
        options={"header": False, "content": "2", "label": "1"},
    ),
    "a header, said": Case(
        {"t.tsv": "billing\tbody\n" + rows_as(1, 0)},
        MANY,
        options={"header": True},
        told=("read 'billing' as the label",),
    ),
    "no header and no suffix": Case({"SMSSpamCollection": rows_as(1, 0), "readme": "About it"}, MANY),
    "no header and no suffix, alone": Case({"SMSSpamCollection": rows_as(1, 0)}, MANY),
    "no header, called .txt": Case({"train.txt": rows_as(0, 1, delimiter=";")}, MANY),
    "a header, called .txt": Case({"train.txt": "text\tlabel\n" + rows_as(0, 1)}, MANY),
    "several files without header": Case(
        {"train.tsv": rows_as(1, 0), "test.tsv": "billing\tone more\n"}, [*MANY, ("one more", "billing")]
    ),
    "numbers whose names stand in another file": Case(
        {
            "train.csv": table(
                *(f'"{1 + (label == "delivery")}","Title {i}","{text}"' for i, (text, label) in enumerate(MANY))
            ),
            "classes.txt": "billing\ndelivery\n",
            "readme.txt": "About it",
        },
        MANY,
        told=("read column 3 as the text and column 1 as the label", "their names are those of classes.txt"),
    ),
    "numbers from 0": Case(
        {"train.csv": "text,label\na,0\nb,1\nc,2\n", "labels.txt": "x\ny\nz\n"}, [("a", "x"), ("b", "y"), ("c", "z")]
    ),
    "numbers of which a name is missing stay": Case(
        {"train.csv": "text,label\na,0\nb,1\nc,7\n", "labels.txt": "x\ny\nz\n"}, [("a", "0"), ("b", "1"), ("c", "7")]
    ),
    "columns called otherwise": Case(
        {"t.csv": "nr,words,queue\n" + rows_as(2, 0, 1, delimiter=";").replace(",", " ").replace(";", ",")},
        [(text.replace(",", " "), label) for text, label in MANY],
        told=("read 'words' as the text and 'queue' as the label",),
    ),
    "a group is no label": Case(
        {"t.csv": "text,group,words\n" + table(*(f"{text},{label},{i}" for i, (text, label) in enumerate(ROWS * 2)))},
        told=("no label column among 'group', 'words'",),
    ),
    "two that may be the label": Case(
        {"t.csv": "words|queue|team\n" + table(*(f"{text}|{label}|{label[0]}" for text, label in MANY))},
        told=("no label column among 'queue', 'team'. Name it by --label",),
    ),
    "two that may be the text": Case(
        {"t.csv": "words|others|queue\n" + table(*(f"{text}|{text[::-1]}|{label}" for text, label in MANY))},
        told=("no text column among 'words', 'others', 'queue'. Name it by --text",),
    ),
    "the longer of two texts": Case(
        {
            "t.csv": "head|words|queue\n"
            + table(*(f"{text[:9]} {i}|{text} {text}|{label}" for i, (text, label) in enumerate(MANY)))
        },
        [(f"{text} {text}", label) for text, label in MANY],
    ),
    "a split is no label": Case(
        {
            "t.csv": "words|part|queue\n"
            + table(*(f"{text}|{'test' if i % 5 else 'train'}|{label}" for i, (text, label) in enumerate(MANY)))
        },
        MANY,
    ),
    "Japanese has no blanks": Case(
        {"t.csv": "v1,v2\n" + table(*(f"{label},{text}{i}" for i in range(3) for text, label in JAPANESE))},
        [(f"{text}{i}", label) for i in range(3) for text, label in JAPANESE],
    ),
    "what tells nothing is refused": Case(
        {"t.csv": "id,words\n1,x\n2,y\n"}, told=("no text column among 'id', 'words'",)
    ),
    "the files' names are the classes": Case(
        {"pos.csv": "text\na good one\n", "neg.csv": "text\na bad one\n"},
        [("a bad one", "neg"), ("a good one", "pos")],
        options={"label": "file"},
    ),
    "a name that several files share": Case(
        {
            "alarm_query.csv": 'answerid;scenario;intent;answer_from_user\n1;alarm;query;"list my alarms"\n',
            "calendar_query.csv": 'answerid;scenario;intent;answer_from_user\n2;calendar;query;"what is on today"\n',
            "alarm_set.csv": 'answerid;scenario;intent;answer_from_user\n3;alarm;set;"wake me at six"\n',
        },
        [("list my alarms", "alarm_query"), ("what is on today", "calendar_query"), ("wake me at six", "alarm_set")],
        told=("the classes are the names of the files. --label intent takes the 2 names in that column",),
    ),
    "a name that several files share, by the column": Case(
        {
            "alarm_query.csv": "intent;text\nquery;list my alarms\n",
            "calendar_query.csv": "intent;text\nquery;what is on today\n",
            "alarm_set.csv": "intent;text\nset;wake me at six\n",
        },
        [("list my alarms", "query"), ("what is on today", "query"), ("wake me at six", "set")],
        options={"label": "intent"},
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_told(write, name):
    check(COLUMNS[name], write)


# Plain text


def parallel(texts: str = "train/seq.in", labels: str = "train/label") -> dict[str, str | bytes]:
    return {texts: table(*(text for text, _ in ROWS)), labels: table(*(label for _, label in ROWS))}


FILES = {f"{label}/{50_000 + i}": text for i, (text, label) in enumerate(ROWS)}

PLAIN_TEXT = {
    "fastText": Case({"t.txt": table(*(f"__label__{label} {text}" for text, label in ROWS))}, ROWS),
    "fastText by its own suffixes": Case(
        {
            "cooking.train": table(*(f"__label__{label} {text}" for text, label in ROWS[:4])),
            "cooking.valid": table(*(f"__label__{label}\t{text}" for text, label in ROWS[4:])),
        },
        ROWS,
    ),
    "fastText of several labels": Case(
        {"t.txt": "__label__a __label__b one text\n__label__b another\n__label__c third\n"},
        [("one text", ["a", "b"]), ("another", ["b"]), ("third", ["c"])],
    ),
    "fastText with a line without": Case(
        {"t.txt": "__label__a one text\nanother\n__label__b third\n"},
        told=("line 2: the line begins with no __label__",),
    ),
    "texts and labels": Case(parallel("texts.txt", "labels.txt"), ROWS, told=("read as two files, line by line",)),
    "seq.in and label": Case(
        {**parallel(), "train/seq.out": "O O O\n" * 6, "intent_label.txt": "billing\ndelivery\n"}, ROWS
    ),
    "several parts": Case(
        {**parallel(), "test/seq.in": "one more\nand one\n", "test/label": "billing\ndelivery\n"},
        [*ROWS, ("one more", "billing"), ("and one", "delivery")],
    ),
    "numbers and a mapping": Case(
        {
            **parallel("train_text.txt", "train_labels.txt"),
            "train_labels.txt": "0\n0\n0\n1\n1\n1\n",
            "val_text.txt": "a\nb\n",
            "val_labels.txt": "1\n0\n",
            "mapping.txt": "0\tbilling\n1\tdelivery\n",
        },
        [*ROWS, ("a", "delivery"), ("b", "billing")],
    ),
    "blank lines at the end": Case(parallel("texts.txt", "labels.txt") | {"x.md": ""}, ROWS),
    "a line more": Case(
        {**parallel("texts.txt", "labels.txt"), "labels.txt": "billing\n" * 7},
        told=("texts.txt has 6 lines and labels.txt has 7, so that they cannot belong line to line",),
    ),
    "files without a suffix": Case(FILES, ROWS),
    "files without a suffix, below a folder": Case(
        {f"20news-train/{path}": text for path, text in FILES.items()}, ROWS
    ),
    "files without a suffix, in CP1252": Case(
        {path: f"{text} – café".encode("cp1252") for path, text in FILES.items()},
        [(f"{text} – café", label) for text, label in ROWS],
        told=("texts that are not UTF-8 seem to be CP1252",),
    ),
    "files without a suffix, in an encoding that is said": Case(
        {path: text.encode("utf-16-le") for path, text in {"a/1.txt": "caf\u00e9", "b/1.txt": "th\u00e9"}.items()},
        [("café", "a"), ("thé", "b")],
        options={"encoding": "utf-16-le"},
    ),
    "aclImdb": Case(
        {
            **{f"aclImdb/train/{label}/{i}_9.txt": text for i, (text, label) in enumerate(ROWS[:4])},
            **{f"aclImdb/test/{label}/{i}_9.txt": text for i, (text, label) in enumerate(ROWS[4:], 4)},
            "aclImdb/train/unsup/0_0.txt": "nobody knows",
            "aclImdb/train/unsup/1_0.txt": "what this is",
            "aclImdb/train/urls_billing.txt": "http://localhost/1\n",
            "aclImdb/imdb.vocab": "the\n",
            "aclImdb/README": "About it",
        },
        ROWS,
        told=("left out 2 texts in unsup/, which have no label", "ignored 1 texts beside the class folders"),
    ),
    "lines that name no class": Case(
        {"t.txt": "one\ntwo\n"}, told=("lines of text that name no classes", "__label__CLASS")
    ),
    "a file of lines for each class": Case(
        {f"{label}.txt": table(*texts) for label, texts in TEXTS.items()} | {"README.txt": "About it"},
        ROWS,
        options={"label": "file"},
    ),
    "quotes between tabs mean nothing": Case(
        {
            "SMSSpamCollection": table(
                *(f'{label}\t"{text}' for text, label in MANY), *(f'{label}\t{text}"" he "said' for text, label in MANY)
            )
        },
        [(f'"{text}', label) for text, label in MANY] + [(f'{text}"" he "said', label) for text, label in MANY],
    ),
    "poems in class folders are no tables": Case(
        {"a/1.txt": "roses, red\nviolets, blue\n", "b/1.txt": "sugar, sweet\nso, you\n"},
        [("roses, red\nviolets, blue\n", "a"), ("sugar, sweet\nso, you\n", "b")],
    ),
}


PLAIN_TEXT["blank lines at the end"].files["texts.txt"] += "\n\n"  # type: ignore[operator]


@pytest.mark.parametrize("name", PLAIN_TEXT)
def test_plain_text(write, name):
    check(PLAIN_TEXT[name], write)


# JSON


def by_column() -> dict[str, dict[str, str]]:
    return {name: {str(i): row[name] for i, row in enumerate(records())} for name in ("text", "label")}


SNIPS = {
    label: [{"data": [{"text": text[:5]}, {"text": text[5:], "entity": "e"}]} for text in texts]
    for label, texts in TEXTS.items()
}

DOCUMENTS: dict[str, Any] = {
    "columns": by_column(),
    "index": {str(i): row for i, row in enumerate(records())},
    "split": {"columns": ["text", "label"], "index": list(range(6)), "data": [list(row) for row in ROWS]},
    "table": {
        "schema": {"fields": [{"name": "text"}]},
        "data": [{"index": i, **row} for i, row in enumerate(records())],
    },
    "records": records(),
    "lists of columns": {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]},
    "lists of columns in parts": {
        "train": {"text": [text for text, _ in ROWS[:4]], "label": [label for _, label in ROWS[:4]]},
        "test": {"text": [text for text, _ in ROWS[4:]], "label": [label for _, label in ROWS[4:]]},
    },
    "under a key": {"version": "1.0", "data": records()},
    "under keys": {"rasa_nlu_data": {"common_examples": [{"text": t, "intent": i, "entities": []} for t, i in ROWS]}},
    "under a key, beside other lists": {"categories": ["billing", "delivery"], "examples": records()},
    "columns under a key": {"version": 1, "data": {"text": [t for t, _ in ROWS], "label": [c for _, c in ROWS]}},
    "classes that list their texts": {
        "intents": [{"tag": label, "patterns": texts, "responses": ["ok"]} for label, texts in TEXTS.items()]
    },
    "in parts": {"train": records()[:4], "test": records()[4:]},
    "objects by class": {label: [{"text": text} for text in texts] for label, texts in TEXTS.items()},
    "in pieces by class": SNIPS,
    "Hugging Face's service": {"features": [], "rows": [{"row_idx": i, "row": row} for i, row in enumerate(records())]},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json(write, name):
    check(Case({"t.json": json.dumps(DOCUMENTS[name])}, ROWS), write)


LINES = table(*map(json.dumps, records()))

JSON = {
    "JSON Lines called .json": Case({"t.json": LINES}, ROWS),
    "JSON Lines called .json, with a bad one": Case(
        {"t.json": LINES + '{"text": \n'}, told=("t.json, line 7: not JSON (Expecting value",)
    ),
    "objects one after the other": Case({"t.json": "\n".join(json.dumps(row, indent=1) for row in records())}, ROWS),
    "half an object": Case(
        {"t.json": json.dumps(records())[:-9]}, told=("t.json: not JSON", "Mend or download it again")
    ),
    "a line that is no JSON": Case(
        {"t.jsonl": LINES + '{"text": "a", "label\n{"text": "b", "label": "x"}\n'},
        [*ROWS, ("b", "x")],
        options={"skip_bad": True},
        told=("left out 1 bad examples of 8", "line 7: not JSON"),
    ),
    "a first line that is no JSON": Case({"t.jsonl": "{\n" + LINES}, ROWS, options={"skip_bad": True}),
    "a document in one long line": Case(
        {"t.json": json.dumps([*records(), {"text": "x" * (17 << 20), "label": "x"}])}, [*ROWS, ("x" * (17 << 20), "x")]
    ),
    "a number of many digits": Case(
        {"t.jsonl": f'{{"text": "a", "label": {"9" * 5000}}}\n'}, told=("line 1: not JSON",)
    ),
    "values without names": Case(
        {"t.json": json.dumps([[label, text] for text, label in MANY])}, MANY, told=("column 2 as the text",)
    ),
    "several files of Snips": Case(
        {
            "Billing/train_billing.json": json.dumps({"billing": SNIPS["billing"]}),
            "Delivery/train_delivery.json": json.dumps({"delivery": SNIPS["delivery"]}),
            "Delivery/README.md": "About it",
        },
        ROWS,
    ),
    "pairs of halves that were written as three bytes each": Case(
        {"t.jsonl": LINES.encode() + '{"text": "pizza \ud83c\udf55", "label": "x"}\n'.encode("utf-8", "surrogatepass")},
        [*ROWS, ("pizza \U0001f355", "x")],
    ),
    "no known shape": Case({"t.json": '{"a": {"b": 1}}'}, told=("JSON of no known shape",)),
}


@pytest.mark.parametrize("name", JSON)
def test_more_json(write, name):
    check(JSON[name], write)


def test_json_beside_pictures_is_about_them(write, png):
    pictures = {f"images/{c}/{i}.png": png(10 * i + ord(c)) for c in "ab" for i in range(3)}
    source = write({**pictures, "annotations/train.json": "{}", "annotations/val.json": "{}"})
    info, rows = import_source(source, "mine")
    assert (info.modality, rows.num_rows) == ("image", 6)


# Labelling tools


def studio(i: int, text: str, *labels: str, **more: Any) -> dict[str, Any]:
    result = {"type": "choices", "from_name": "topic", "to_name": "text", "value": {"choices": list(labels)}}
    return {"id": i, "data": {"text": text}, "annotations": [{"result": [result], "was_cancelled": False}], **more}


def studio_export() -> list[dict[str, Any]]:
    return [studio(i, text, label) for i, (text, label) in enumerate(ROWS)]


def studio_min(name: str = "topic", **more: Any) -> list[dict[str, Any]]:
    own = {"annotator": 1, "annotation_id": 9, "lead_time": 3.1}
    return [{"id": i, "text": text, name: label, **own, **more} for i, (text, label) in enumerate(ROWS)]


def choice(text: str, *accept: str, answer: str = "accept") -> dict[str, Any]:
    return {"text": text, "options": [], "accept": list(accept), "answer": answer, "_input_hash": 1, "_task_hash": 2}


def lines(rows: list[dict[str, Any]]) -> str:
    return table(*map(json.dumps, rows))


TOOLS = {
    "Label Studio": Case({"t.json": json.dumps(studio_export())}, ROWS, told=("read as Label Studio's export",)),
    "Label Studio, of long ago": Case(
        {
            "t.json": json.dumps(
                [{**one, "completions": one["annotations"], "annotations": []} for one in studio_export()]
            )
        },
        ROWS,
    ),
    "Label Studio, several choices": Case(
        {"t.json": json.dumps([studio(0, "a", "x", "y"), studio(1, "b", "x"), studio(2, "c", "y")])},
        [("a", ["x", "y"]), ("b", ["x"]), ("c", ["y"])],
    ),
    "Label Studio, not all labelled": Case(
        {
            "t.json": json.dumps(
                [
                    *studio_export(),
                    {"id": 8, "data": {"text": "nobody knows"}, "annotations": []},
                    {"id": 9, "data": {"text": "skipped"}, "annotations": [{"result": [], "was_cancelled": True}]},
                ]
            )
        },
        ROWS,
        told=("left out 2 that nobody has labelled",),
    ),
    "Label Studio, people disagree": Case(
        {
            "t.json": json.dumps(
                [
                    *studio_export(),
                    studio(8, "a", "x")
                    | {"annotations": studio(8, "a", "x")["annotations"] + studio(8, "a", "y")["annotations"]},
                ]
            )
        },
        told=("row 7: people disagree about it: 'x' and 'y'", "--skip-bad"),
    ),
    "Label Studio, people agree": Case(
        {"t.json": json.dumps([one | {"annotations": one["annotations"] * 2} for one in studio_export()])}, ROWS
    ),
    "Label Studio, boxes": Case(
        {
            "t.json": json.dumps(
                [
                    {
                        "id": 1,
                        "data": {"image": "1.png"},
                        "annotations": [{"result": [{"type": "rectanglelabels", "value": {}}]}],
                    }
                ]
            )
        },
        told=("holds rectanglelabels and no choices",),
    ),
    "Label Studio, JSON-MIN": Case({"t.json": json.dumps(studio_min())}, ROWS),
    "Label Studio, JSON-MIN, another question": Case(
        {
            "t.json": json.dumps(
                [row | {"id": i, "text": f"{row['text']} {i}"} for i, row in enumerate(studio_min("matter") * 3)]
            )
        },
        [(f"{text} {i}", label) for i, (text, label) in enumerate(ROWS * 3)],
        told=("read 'matter' as the label",),
    ),
    "Label Studio, JSON-MIN, several choices": Case(
        {
            "t.json": json.dumps(
                [{"id": 1, "text": "a", "topic": "x"}, {"id": 2, "text": "b", "topic": {"choices": ["x", "y"]}}]
            )
        },
        [("a", ["x"]), ("b", ["x", "y"])],
    ),
    "Label Studio, CSV": Case(
        {
            "t.csv": table(
                "annotator,annotation_id,topic,id,lead_time,text",
                *(f"1,9,{label},1,3.1,{text}" for text, label in ROWS),
            )
        },
        ROWS,
    ),
    "Label Studio, CSV, several choices": Case(
        {
            "t.csv": "annotator,annotation_id,topic,id,lead_time,text\n"
            '1,9,"{""choices"": [""x"", ""y""]}",1,3.1,a\n1,9,x,2,3.1,b\n'
        },
        [("a", ["x", "y"]), ("b", ["x"])],
    ),
    "Argilla": Case(
        {
            "t.json": json.dumps(
                [
                    {
                        "id": str(i),
                        "status": "completed",
                        "fields": {"text": text},
                        "metadata": {},
                        "suggestions": {},
                        "responses": {"topic": [{"value": label, "user_id": "u", "status": "submitted"}]},
                    }
                    for i, (text, label) in enumerate(ROWS)
                ]
                + [{"id": "9", "fields": {"text": "open"}, "suggestions": {}, "responses": {}}]
            )
        },
        ROWS,
        told=("read as Argilla's export", "left out 1 that nobody has labelled"),
    ),
    "Argilla, flat": Case(
        {
            "t.jsonl": lines(
                [
                    {
                        "id": str(i),
                        "text": text,
                        "topic.responses": [label],
                        "topic.responses.users": ["u"],
                        "topic.responses.status": ["submitted"],
                        "topic.suggestion": None,
                    }
                    for i, (text, label) in enumerate(ROWS)
                ]
            )
        },
        ROWS,
    ),
    "Argilla, with who said it": Case(
        {
            "t.jsonl": lines(
                [
                    {"text": text, "label": [{"user_id": "u", "value": label, "status": "submitted"}]}
                    for text, label in ROWS
                ]
            )
        },
        ROWS,
    ),
    "Argilla, of long ago": Case(
        {
            "t.jsonl": lines(
                [
                    *(
                        {"inputs": {"text": text}, "prediction": None, "annotation": label, "status": "Validated"}
                        for text, label in ROWS
                    ),
                    {"inputs": {"text": "bad"}, "prediction": None, "annotation": "x", "status": "Discarded"},
                ]
            )
        },
        ROWS,
        told=("left out 1 that were discarded",),
    ),
    "doccano": Case(
        {"t.jsonl": lines([{"id": i, "text": text, "label": [label]} for i, (text, label) in enumerate(ROWS)])}, ROWS
    ),
    "doccano, several labels": Case(
        {
            "t.jsonl": lines(
                [
                    {"id": 1, "text": "a", "label": ["x", "y"]},
                    {"id": 2, "text": "b", "label": []},
                    {"id": 3, "text": "c", "label": ["x"]},
                ]
            )
        },
        [("a", ["x", "y"]), ("b", []), ("c", ["x"])],
    ),
    "doccano, not all labelled": Case(
        {
            "t.jsonl": lines(
                [
                    *({"id": i, "text": text, "label": [label]} for i, (text, label) in enumerate(ROWS)),
                    {"id": 9, "text": "nobody knows", "label": []},
                ]
            )
        },
        ROWS,
        told=("left out 1 that nobody has labelled",),
    ),
    "doccano, spans": Case(
        {"t.jsonl": lines([{"id": 1, "text": "a", "label": [[0, 1, "x"]]}])},
        told=("nobody has labelled anything in it",),
    ),
    "Prodigy": Case({"t.jsonl": lines([choice(text, label) for text, label in ROWS])}, ROWS),
    "Prodigy, several": Case(
        {"t.jsonl": lines([choice("a", "x", "y"), choice("b", "y"), choice("c", "x", answer="ignore")])},
        [("a", ["x", "y"]), ("b", ["y"])],
        told=("left out 1 that were rejected or ignored",),
    ),
    "Prodigy, yes or no": Case(
        {
            "t.jsonl": lines(
                [
                    *({"text": text, "label": label, "answer": "accept", "_task_hash": 1} for text, label in ROWS),
                    {"text": "other", "label": "billing", "answer": "reject", "_task_hash": 1},
                ]
            )
        },
        ROWS,
        told=("left out 1 of which it is said what they are not",),
    ),
    "questions and answers are nobody's export": Case(
        {"t.jsonl": lines([{"question": text, "answer": label} for text, label in ROWS])},
        ROWS,
        options={"label": "answer"},
    ),
}


@pytest.mark.parametrize("name", TOOLS)
def test_labelling_tools(write, name):
    check(TOOLS[name], write)


# Half a character


HALF = "half \\ud83d"
WHOLE = {"text": "one", "label": "x", "who": "ann"}


@pytest.mark.parametrize(
    ("file", "content", "place"),
    [
        ("t.jsonl", lambda row: lines([WHOLE, row, WHOLE | {"label": "y"}]), "line 2"),
        ("t.json", lambda row: json.dumps([WHOLE, row, WHOLE | {"label": "y"}]), "row 2"),
        ("t.json", lambda row: json.dumps({"data": [WHOLE, row, WHOLE | {"label": "y"}]}), "data row 2"),
    ],
)
@pytest.mark.parametrize("field_", ["text", "label", "who"])
def test_half_a_character(write, file, content, place, field_):
    path = write({file: content(WHOLE | {field_: HALF}).replace("\\\\ud83d", "\\ud83d")}) / file
    with pytest.raises(QuickstudyError) as caught:
        import_source(path, "mine", ImportOptions(group="who"))
    assert f"{place}: the {field_} holds half a character (\\ud83d). It is the only bad one" in str(caught.value)
    _, rows = import_source(path, "mine", ImportOptions(group="who", skip_bad=True))
    assert rows.num_rows == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"train": [["a", "x"], ["so \\ud83d", "y"], ["b", "y"]]}', "train row 2: the text holds half"),
        ('{"x": ["a"], "y": ["so \\ud83d", "b"]}', "y row 1: the text holds half"),
        ('{"x": ["a"], "y \\ud83d": ["b"], "z": ["c"]}', "row 1: the label holds half"),
        (
            '[{"text": "a", "tags": ["x"]}, {"text": "b", "tags": ["y", "\\ud83d"]}, {"text": "c", "tags": []}]',
            "row 2: the tags holds",
        ),
        ('[{"text \\ud83d": "a", "label": "x"}]', "no text column among"),
    ],
)
def test_half_a_character_anywhere_in_json(write, text, what):
    with pytest.raises(QuickstudyError) as caught:
        import_source(write({"t.json": text}) / "t.json", "mine")
    assert what in str(caught.value)
    str(caught.value).encode()


def test_half_a_character_in_a_named_column_is_told(write):
    path = write({"t.json": '[{"text": "a", "\\ud83d": 1}, {"text": "b", "\\ud83d": 0}]'}) / "t.json"
    with pytest.raises(QuickstudyError, match=r"the name of the column '.ud83d' holds half a character"):
        import_source(path, "mine", ImportOptions(label_columns=("*",)))


def test_half_a_character_in_a_file_of_groups(write):
    source = write({"t.csv": "text,label\na,x\nb,y\n", "g.json": '{"one \\ud83d": ["x"], "two": ["y"]}'})
    with pytest.raises(QuickstudyError, match=r"g.json: the name of a group or class holds half a character"):
        import_source(source / "t.csv", "mine", ImportOptions(group=str(source / "g.json")))


def test_half_a_character_in_queries(write):
    path = write({"q.jsonl": '{"text": "where is it \\ud83d"}\n{"text": "refund please"}\n'}) / "q.jsonl"
    with pytest.raises(QuickstudyError, match="line 1: the text holds half a character"):
        read_queries(path)
    asked = read_queries(path, ImportOptions(skip_bad=True))
    assert (asked.contents, asked.paths) == (["refund please"], ["text 2"])
    lines_ = write({"q.txt": b"good\nbad \xff\n"}) / "q.txt"
    with pytest.raises(QuickstudyError, match=r"line 2: the line is not UTF-8 \(byte 0xff\)"):
        read_queries(lines_)


def test_parquet_whose_texts_are_no_text(tmp_path):
    texts = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.array([0, 4, 9, 13], np.int32)), pa.py_buffer(b"goodbad \xfffine")
    )
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": texts, "label": ["x", "y", "y"]}), path)
    with pytest.raises(QuickstudyError, match=r"row 2: the text is not UTF-8 \(byte 0xff\)"):
        import_source(path, "mine")
    assert import_source(path, "mine", ImportOptions(skip_bad=True))[1].column("text").to_pylist() == ["good", "fine"]


# Queries


@pytest.mark.parametrize(
    ("file", "content", "contents"),
    [
        ("q.txt", b"one\rtwo\rthree", ["one", "two", "three"]),
        ("q.txt", b"one\ntwo \r\nthree", ["one", "two", "three"]),
        ("q.txt", "eins für\nzwei Größe\n".encode("cp1252"), ["eins für", "zwei Größe"]),
        ("q.txt", "one\ntwo\n".encode("utf-16"), ["one", "two"]),
        ("q.csv", csv("|").encode(), [text for text, _ in ROWS]),
        (
            "q.csv",
            b"words of theirs\nwhere is my parcel\nI want my money back\n",
            ["where is my parcel", "I want my money back"],
        ),
        ("q.csv", b"ask\nhi\nok\n", ["hi", "ok"]),
        ("q.json", json.dumps([text for text, _ in ROWS]).encode(), [text for text, _ in ROWS]),
    ],
)
def test_queries(write, file, content, contents):
    assert read_queries(write({file: content}) / file).contents == contents


def test_a_dataset_remembers_how_it_was_read(write):
    source = write({"t.csv": csv("^", header=None).encode("utf-16-le")}) / "t.csv"
    options = ImportOptions(encoding="utf-16-le", delimiter="^", header=False, content="1", label="2")
    info, _ = import_source(source, "mine", options)
    assert info.reading is not None
    assert (info.reading.encoding, info.reading.delimiter, info.reading.header) == ("utf-16-le", "^", False)
