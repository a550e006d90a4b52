"""Sources of every sort, right and wrong. Each wrong one gets one line that says what, where and how to mend."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from quickstudy.data.dataset import Dataset, check_name, make_table, read_dataset, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers import archives
from quickstudy.ingest.importers.folders import compile_pattern
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source, read_queries


def imported(
    source: Path,
    note: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options,
) -> Dataset:
    return Dataset(*import_source(source, "mine", ImportOptions(**options), note=note, progress=progress))


def refusal(source: Path, **options) -> str:
    with pytest.raises(QuickstudyError) as caught:
        imported(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def columns(dataset: Dataset, *names: str) -> list[tuple]:
    return list(zip(*(dataset.column(name) for name in names), strict=True))


# Names


@pytest.mark.parametrize("name", ["a", "7", "tickets-2026_b", "x" * 64])
def test_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Tickets", "../up", "-x", "_x", "a b", "x" * 65, "é", "a/b", "a\n"])
def test_no_names(name):
    with pytest.raises(QuickstudyError, match="cannot be the name of a dataset"):
        check_name(name)


# Folders


def test_one_folder_a_class(write, png):
    source = write({f"{c}/{i}.png": png(i + 10 * len(c)) for c in ("bb", "a") for i in range(3)})
    notes: list[str] = []
    dataset = imported(source, note=notes.append)
    assert dataset.modality == "image"
    assert columns(dataset, "label", "group") == [("a", "mine")] * 3 + [("bb", "mine")] * 3
    assert dataset.info.group == "dataset"
    assert dataset.raw([0]) == [(source / "a/0.png").read_bytes()]
    assert dataset.table["image"].to_pylist()[4]["path"] == "bb/1.png"
    assert notes == ["no groups given: the 2 classes are one, and stay on one side of the meta-split"]


def test_from_ten_classes_on_each_is_its_own_group(write, png):
    dataset = imported(write({f"c{i}/x.png": png(i) for i in range(10)}))
    assert dataset.column("group") == dataset.column("label")
    assert dataset.info.group == "class"


def test_two_folders_are_group_and_class(write, png):
    files = {f"{g}/{c}/1.png": png(i) for i, (g, c) in enumerate([("greek", "a"), ("greek", "b"), ("latin", "a")])}
    dataset = imported(write(files))
    # The two letters a are two classes.
    assert columns(dataset, "label", "group") == [("greek/a", "greek"), ("greek/b", "greek"), ("latin/a", "latin")]
    assert dataset.info.group == "folder"


def test_the_group_may_be_the_lower_folder_or_none_or_the_class(write, png):
    source = write(
        {f"{c}/{s}/1.png": png(i) for i, (c, s) in enumerate([("yes", "ann"), ("yes", "bob"), ("no", "ann")])}
    )
    assert columns(imported(source, group="1"), "label", "group") == [("no", "ann"), ("yes", "ann"), ("yes", "bob")]
    assert set(imported(source, group="none").column("group")) == {"mine"}
    assert imported(source, group="class").column("group") == ["no/ann", "yes/ann", "yes/bob"]
    spoken = imported(source, domain="1")
    assert columns(spoken, "label", "domain") == [("no", "ann"), ("yes", "ann"), ("yes", "bob")]
    assert spoken.info.domain == "folder"


def test_folder_levels_that_are_not_there(write, png):
    source = write({"a/1.png": png(1), "b/1.png": png(2)})
    assert refusal(source, group="1") == (
        "--group: no folder level '1'. The folders above the files are levels 0 from the top"
    )
    assert refusal(source, domain="0") == "--domain 0: no folder level is left for the class"


def test_train_and_test_folders_are_joined(write, png):
    notes: list[str] = []
    files = {
        f"{s}/{c}/{i}.png": png(i) for i, (s, c) in enumerate((s, c) for s in ("train", "test") for c in ("cat", "dog"))
    }
    dataset = imported(write(files), note=notes.append)
    assert dataset.column("label") == ["cat", "cat", "dog", "dog"]
    assert notes[0].startswith("joined test, train:")


def test_litter_and_other_files_are_left(write, png):
    notes: list[str] = []
    litter = {
        ".git/1.png": b"",
        ".ipynb_checkpoints/1-checkpoint.png": b"",
        "a/.DS_Store": b"",
        "__MACOSX/a/1.png": b"",
        "a/Thumbs.db": b"",
        "README.md": b"hello",
    }
    dataset = imported(write({"a/1.png": png(1), "b/1.PNG": png(2), **litter}), note=notes.append)
    assert len(dataset) == 2
    assert notes[0] == "ignored 1 other files (1 × .md)"


def test_order_is_that_of_names(write, png, monkeypatch):
    source = write({f"{c}/{i}.png": png(i) for c in "ba" for i in (10, 9, 1)})
    first = imported(source)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: list(scandir(path))[::-1])
    assert imported(source).table.equals(first.table)
    assert [cell["path"] for cell in first.table["image"].to_pylist()][:3] == ["a/1.png", "a/10.png", "a/9.png"]


def test_names_of_classes_are_normalised(write, png):
    dataset = imported(write({"cafe\u0301/1.png": png(1), "b/1.png": png(2)}))
    assert dataset.classes == ["b", "caf\u00e9"]


def test_unequal_depths_and_flat_files(write, png):
    source = write({"a/1.png": png(1), "b/c/1.png": png(2)})
    assert refusal(source) == (
        f"{source}: a/1.png and b/c/1.png are not equally deep in folders. "
        "Arrange them as CLASS/file or GROUP/CLASS/file, or say how the names are made by --pattern"
    )
    flat = write({"1.png": png(1)}, "flat")
    assert refusal(flat).startswith(f"{flat}/1.png: the file is in no class folder. Arrange them as CLASS/file")


def test_nothing_there(write, tmp_path):
    assert refusal(tmp_path / "no") == f"{tmp_path}/no: there is no such file or folder. Check the path"
    assert refusal(write({})) == f"{tmp_path}/source: empty. Check the path and --modality"
    source = write({"a/1.txt": "x", "b.docx": "x"})
    assert refusal(source, modality="audio") == (
        f"{source}: no recordings (.aif, .aifc, .aiff, .au, .caf, .flac, .mp3, .oga, .ogg, .opus, .snd, .w64, .wav, "
        ".wave) found; there are 1 × .txt, 1 × .docx. Check the path and --modality"
    )
    packed = write({"x.tar.gz": b"\x1f\x8b"}, "packed")
    assert refusal(packed / "x.tar.gz").endswith("found; there are 1 × .gz. Unpack it and import the folder")


def test_one_class_only(write, png):
    source = write({f"a/{i}.png": png(i) for i in range(3)})
    assert refusal(source) == (
        f"{source}: all 3 examples are of the one class 'a'. A task needs two classes or more; "
        "where file names hold the class, say how by --pattern '{class}_{}'"
    )


def test_a_text_file_named_png(write, png):
    source = write({"a/1.png": png(1), "a/2.png": "I am text\n", "b/1.png": png(2), "b/3.png": b""})
    why = "not an image but text; known formats are PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM, AVIF"
    assert refusal(source) == (
        f"{source}/a/2.png: {why}. It is the first of 2 bad ones among 4 examples: "
        "mend them or leave them out by --skip-bad"
    )
    notes: list[str] = []
    assert len(imported(source, skip_bad=True, note=notes.append)) == 2
    assert notes[0] == f"left out 2 bad examples of 4, the first is {source}/a/2.png: {why}"


def test_skipping_everything_is_no_import(write):
    source = write({"a/1.png": "no", "b/1.png": "no"})
    assert "None of the 2 examples can be read" in refusal(source, skip_bad=True)


def test_recordings_that_cannot_be_used(write, wav):
    source = write({"a/1.wav": wav(1), "a/2.wav": wav(seconds=0), "b/1.wav": wav(2)})
    assert refusal(source).startswith(f"{source}/a/2.wav: a recording of zero length. It is the only bad one among 3")
    source = write({"a/2.wav": wav(channels=8)})
    assert refusal(source).startswith(f"{source}/a/2.wav: 8 channels; at most 2 (mono or stereo) are read. It is")


def test_images_and_recordings_need_a_word(write, png, wav):
    source = write({"a/1.png": png(), "b/1.wav": wav()})
    assert refusal(source) == f"{source}: holds both images and recordings. Choose by --modality"


def test_texts_as_files(write):
    dataset = imported(write({"good/1.txt": "so good", "bad/1.txt": "\ufeffso bad\n"}))
    assert columns(dataset, "label", "text") == [("bad", "so bad\n"), ("good", "so good")]
    source = write({"bad/2.txt": b"caf\xe9", "good/2.txt": "  \n"})
    assert refusal(source).startswith(f"{source}/bad/2.txt: not UTF-8 (byte 0xe9 at 3). It is the first of 2")


# Links


def test_links_that_lead_out(write, png, tmp_path):
    source = write({"a/1.png": png(1), "b/1.png": png(2)})
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(3))
    link = source / "a/2.png"
    link.symlink_to(secret)
    assert refusal(source) == (
        f"{source}/a/2.png: a link to a file outside the source. Put the files themselves in its place, or follow such "
        "links by --follow-links"
    )
    assert len(imported(source, follow_links=True)) == 3
    link.unlink()
    link.symlink_to(source / "a/1.png")
    assert len(imported(source)) == 3
    link.unlink()
    link.symlink_to(source / "a")
    assert refusal(source) == f"{source}/a/2.png: a link to a folder that it lies in. Remove it"
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    assert refusal(source) == f"{source}/a/2.png: a link to nothing. Remove it"


def test_what_is_no_file(write, png):
    source = write({"a/1.png": png(1), "b/1.png": png(2)})
    os.mkfifo(source / "a/2.png")
    assert refusal(source) == f"{source}/a/2.png: not a regular file. Remove it"
    assert refusal(source / "a/2.png").startswith(f"{source}/a/2.png: not a regular file.")


def test_names_that_are_no_text(write, png):
    source = write({"a/1.png": png(1), "b/1.png": png(2)})
    (Path(os.fsdecode(os.fsencode(source) + b"/a/\xff.png"))).write_bytes(png(3))
    assert refusal(source) == "'a/\\udcff.png': a file name is not UTF-8. Rename it"


# Patterns


def test_a_pattern(write, wav):
    source = write(
        {f"recordings/{d}_{s}_{i}.wav": wav(i) for i, (d, s) in enumerate([(7, "ann"), (7, "bo"), (0, "ann")])}
    )
    dataset = imported(source, pattern="{class}_{speaker}_{}", domain="speaker", split="test")
    assert columns(dataset, "label", "domain") == [("0", "ann"), ("7", "ann"), ("7", "bo")]
    assert dataset.info.domain == "speaker"
    assert dataset.info.meta_split == "test"


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("{class}_{who}_{}", "0_ann_b_3", {"class": "0", "who": "ann"}),
        ("{class}/{who:8}{}", "stop/00000001_NO_01", {"class": "stop", "who": "00000001"}),
        ("{group}/{class}/{}", "g/c/x", {"group": "g", "class": "c"}),
        ("{class}-{}.wav", "a.b-1", {"class": "a.b"}),
        ("{}[{class}]", "x[y]", {"class": "y"}),
    ],
)
def test_patterns(pattern, path, fields):
    expression, depth = compile_pattern(pattern)
    assert depth == pattern.count("/") + 1
    assert expression.match(path).groupdict() == fields


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("{}_{speaker}", "no field {class}"),
        ("{class}_{class}", "the field 'class' twice"),
        ("{class}_{Speaker}", "a brace that is no field"),
        ("{class", "a brace that is no field"),
        ("{class}{x:0}", "a brace that is no field"),
    ],
)
def test_no_patterns(write, png, pattern, what):
    source = write({"a_1.png": png(1)})
    line = refusal(source, pattern=pattern)
    assert line.startswith(f"--pattern {pattern!r}: {what}")
    assert line.endswith("An example: --pattern '{class}_{speaker}_{}' --domain speaker")


def test_names_that_do_not_fit_the_pattern(write, png):
    source = write({"a_1.png": png(1), "b_1.png": png(2), "c.png": png(3)})
    assert refusal(source, pattern="{class}_{}").startswith(
        f"{source}/c.png: the name does not fit --pattern '{{class}}_{{}}'. It is the only bad one among 3 examples"
    )
    assert refusal(source, pattern="{class}_{}", domain="who") == "--domain who: no such field. The pattern has class"


def test_a_field_called_group(write, png):
    dataset = imported(
        write({f"{g}-{c}.png": png(i) for i, (g, c) in enumerate(["ga", "gb", "hc"])}), pattern="{group}-{class}"
    )
    assert columns(dataset, "label", "group") == [("a", "g"), ("b", "g"), ("c", "h")]


# Zip


def test_a_zip_is_its_folder(write, pack, png):
    files = {f"top/{c}/{i}.png": png(i) for c in "ab" for i in range(2)}
    zipped = pack({**files, "__MACOSX/top/a/._0.png": b"x", "top/": b"", "top/a/.DS_Store": b""})
    assert imported(zipped).table.equals(imported(write(files)).table)
    assert imported(zipped).classes == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["../a/1.png", "a/../../1.png", "/a/1.png", "..\\1.png", "a\\..\\..\\1", "\\1.png", "C:/1"]
)
def test_a_zip_with_a_path_that_leads_out(pack, png, name):
    source = pack({"a/1.png": png(1), name: png(2)})
    assert refusal(source) == (
        f"{source}: member {name!r} leads out of the archive. Pack the folder again with plain relative paths"
    )


def test_a_zip_with_a_link(tmp_path, png):
    source = tmp_path / "source.zip"
    with zipfile.ZipFile(source, "w") as archive:
        member = zipfile.ZipInfo("a/1.png")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    assert refusal(source) == f"{source}: member 'a/1.png' is a link. Pack the file itself"


def test_half_a_zip(pack, png):
    source = pack({f"{c}/{i}.png": png(i) for c in "ab" for i in range(20)})
    source.write_bytes(source.read_bytes()[:3000])
    assert refusal(source) == (
        f"{source}: not a complete .zip archive (file is not a zip file). Download or pack it again"
    )


def test_a_member_that_is_damaged(pack, png):
    source = pack({"a/1.png": png(1), "b/1.png": png(2)}, method=zipfile.ZIP_STORED)
    data = bytearray(source.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 0xFF
    source.write_bytes(data)
    assert refusal(source).startswith(
        f"{source}/a/1.png: damaged in the archive (Bad CRC-32 for file 'a/1.png'). It is"
    )


def test_an_encrypted_zip(pack, png):
    source = pack({"a/1.png": png(1)})
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    source.write_bytes(data)
    assert refusal(source) == (
        f"{source}: member 'a/1.png' is encrypted. Unpack it with its password and import the folder"
    )


def test_two_members_of_one_name(tmp_path, png):
    source = tmp_path / "source.zip"
    with zipfile.ZipFile(source, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/1.png", png(1))
        archive.writestr("a/1.png", png(2))
    assert refusal(source) == f"{source}: two members are named 'a/1.png'. Pack the folder again"


def test_a_zip_bomb(pack, monkeypatch):
    monkeypatch.setattr(archives, "RATIO_COUNTS_FROM", 2 << 20)
    source = pack({"a/1.png": bytes(8 << 20), "b/1.png": bytes(8 << 20)})
    assert source.stat().st_size < 40_000
    read = []
    original = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n: (read.append(n), original(self, n))[1])
    assert refusal(source) == (
        f"{source}: unpacks to more than 200 times its size (at a/1.png), as archives made to fill a disk do. "
        "If you trust it, unpack it and import the folder"
    )
    assert sum(read) <= 4 << 20  # it was not unpacked to see


def test_a_bomb_of_many_small_members(pack, monkeypatch):
    monkeypatch.setattr(archives, "RATIO_COUNTS_FROM", 2 << 20)
    source = pack({f"a/{i}.png": bytes(300_000) for i in range(40)})
    assert "unpacks to more than 200 times its size" in refusal(source, skip_bad=True)


def test_a_header_that_lies_about_the_size(pack, png):
    source = pack({"a/1.png": png(1, size=(200, 200)), "b/1.png": png(2)}, method=zipfile.ZIP_STORED)
    data = bytearray(source.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")  # says 100 bytes
    source.write_bytes(data)
    assert f"{source}/a/1.png: damaged" in refusal(source)


def test_sizes_are_bounded(write, pack, png, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE", 1000)
    files = {"a/1.png": png(1, size=(60, 60)), "b/1.png": png(2)}
    for source in (write(files), pack(files)):
        assert refusal(source).startswith(f"{source}/a/1.png: larger than 0 MB. It is the only bad one")
    monkeypatch.setattr(archives, "MAX_FILE", 1 << 20)
    monkeypatch.setattr(archives, "MAX_TOTAL", 3900)
    for source in (write(files), pack(files)):
        assert refusal(source) == f"{source}: holds more than 0 MB. Import a part of it"
    monkeypatch.setattr(archives, "MAX_FILES", 1)
    for source in (write(files), pack(files)):
        assert refusal(source) == f"{source}: more than 1 files. Import a part of it"


# CSV, TSV


def test_csv(write):
    source = write(
        {"t.csv": 'id,utterance,intent\n1,"Hello, you",greet\n2,"He said ""hi""\nand left",tell\n\n3,Hey,greet\n'}
    )
    dataset = imported(source / "t.csv")
    assert columns(dataset, "label", "text") == [
        ("greet", "Hello, you"),
        ("greet", "Hey"),
        ("tell", 'He said "hi"\nand left'),
    ]
    assert dataset.info.source == "t.csv"


def test_columns_by_name(write):
    source = write({"t.csv": "text,label,body,queue,product,by\nx,x,a,q1,p1,ann\nx,x,b,q2,p2,bob\n"})
    dataset = imported(source / "t.csv", content="body", label="queue", group="product", domain="by", scope="group")
    assert columns(dataset, "text", "label", "group", "domain") == [("a", "q1", "p1", "ann"), ("b", "q2", "p2", "bob")]
    assert (dataset.info.group, dataset.info.domain, dataset.info.episode_scope) == ("product", "by", "group")


def test_other_delimiters_and_a_mark_of_the_order(write):
    semicolons = write({"t.csv": "\ufefftext;label\na,b;x\nc;y\n"}) / "t.csv"
    assert columns(imported(semicolons), "text", "label") == [("a,b", "x"), ("c", "y")]
    tabs = write({"t.tsv": 'text\tlabel\n"bare quote\tx\n"whole ""field"""\ty\n'}) / "t.tsv"
    assert columns(imported(tabs), "text", "label") == [('"bare quote', "x"), ('whole "field"', "y")]


def test_files_of_one_folder_are_joined(write):
    source = write({"train.csv": "text,label\na,x\nb,y\n", "test.csv": "text,label\nc,x\n", "info.json": "{}"})
    dataset = imported(source)
    assert columns(dataset, "text", "label") == [("c", "x"), ("a", "x"), ("b", "y")]


def test_columns_that_are_not_there(write):
    source = write({"t.csv": "id,words\n1,x\n"}) / "t.csv"
    assert refusal(source) == f"{source}: no text column among 'id', 'words'. Name it by --text"
    assert refusal(source, content="words") == f"{source}: no label column among 'id'. Name it by --label"
    assert refusal(source, content="body") == f"{source}: no column 'body'. It has 'id', 'words'"
    assert refusal(source, content="words", label="id", group="x") == f"{source}: no column 'x'. It has 'id'"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("c", "1 fields, the header has 2"),
        ("c,x,y", "3 fields, the header has 2"),
        (",x", "the text is empty"),
        ('"  ",x', "the text is empty"),
        ("c,", "the label is empty"),
        ("c\0,x", "the text holds a NUL character"),
    ],
)
def test_a_bad_row_is_numbered(write, row, why):
    source = write({"t.csv": f'text,label\n"a\na",x\n{row}\nb,y\n'}) / "t.csv"
    assert refusal(source) == (
        f"{source}, line 4: {why}. It is the only bad one among 3 examples: mend them or leave them out by --skip-bad"
    )
    assert len(imported(source, skip_bad=True)) == 2


def test_quotes_that_do_not_close(write):
    source = write({"t.csv": 'text,label\na,x\n"b,y\nc,z\n'}) / "t.csv"
    assert refusal(source) == (
        f"{source}, line 3: the row cannot be read, its quotes do not match (unexpected end of data). "
        "It is the only bad one among 3 examples: mend them or leave them out by --skip-bad"
    )
    assert columns(imported(source, skip_bad=True), "text", "label") == [("a", "x"), ("c", "z")]


def test_another_encoding(write):
    source = write({"t.csv": "text,label\na,x\ncafé,y\n".encode("latin-1")}) / "t.csv"
    assert refusal(source) == (
        f"{source}, line 3: the text is not UTF-8 (byte 0xe9); if it is in another encoding, say which by --encoding. "
        "It is the only bad one among 2 examples: mend them or leave them out by --skip-bad"
    )
    assert columns(imported(source, encoding="cp1252"), "text", "label") == [("a", "x"), ("café", "y")]


def test_a_header_twice_and_no_rows(write):
    source = write({"t.csv": "text,label,text\na,x,b\n"}) / "t.csv"
    assert refusal(source) == f"{source}: two columns are named 'text'. Rename one"
    source.write_text("")
    assert refusal(source) == f"{source}: empty. The first line names the columns, text,label for example"
    source.write_text("text,label\n")
    assert refusal(source) == f"{source}: no examples, only the names of the columns"


def test_one_label_only(write):
    source = write({"t.csv": "text,label\na,x\nb,x\n"}) / "t.csv"
    assert refusal(source) == f"{source}: all 2 examples are of the one class 'x'. A task needs two classes or more"


def test_a_column_in_some_files_only(write):
    source = write({"a.csv": "text,label,group\na,x,g\n", "b.csv": "text,label\nb,y\n"})
    assert refusal(source) == f"{source}: some of its files have a group column and some have none"


def test_classes_in_several_groups_are_told(write):
    notes: list[str] = []
    source = write({"t.csv": "text,label,who\na,x,ann\nb,x,bob\nc,y,bob\n"}) / "t.csv"
    imported(source, group="who", note=notes.append)
    assert notes[0].startswith("1 of 2 classes occur in several groups, for example 'x':")
    assert "--domain" in notes[0]


def test_leaving_classes_out(write):
    source = write({"t.csv": "text,label\na,x\nb,y\nc,oos\n"}) / "t.csv"
    assert imported(source, exclude=["oos"]).classes == ["x", "y"]
    assert refusal(source, exclude=["other"]) == f"{source}: no class 'other' to leave out. Check --exclude-label"
    assert refusal(source, exclude=["x", "y", "oos"]).startswith(f"{source}: no examples are left.")


def test_dropping_duplicates(write):
    notes: list[str] = []
    source = write({"t.csv": "text,label\nsame,y\na,x\nsame,x\na,x\nb,y\nb,y\n"}) / "t.csv"
    dataset = imported(source, drop_duplicates=True, note=notes.append)
    assert columns(dataset, "text", "label") == [("a", "x"), ("b", "y")]
    assert notes[0] == "left out 4 duplicates, 1 of them under two labels"


# JSON


def test_jsonl(write):
    source = write({"t.jsonl": '{"text": "a", "label": 1}\n\n{"text": "b", "label": "two", "more": []}\n'}) / "t.jsonl"
    assert columns(imported(source), "text", "label") == [("a", "1"), ("b", "two")]
    source.write_text('{"text": "a", "label": 1}\n{"text": "b"}\n[1]\n{"text": 3, "label": 2}\n')
    assert refusal(source).startswith(f"{source}, line 2: the label is missing. It is the first of 3 bad ones among 4")
    source.write_text('{"text": "a", "label": 1}\n{"text": \n')
    assert refusal(source).startswith(f"{source}, line 2: not JSON (Expecting value, line 2 column 1)")
    source.write_text("[1, 2]\n")
    assert refusal(source).startswith(f"{source}, line 1: '[1, 2]' is no object with named fields. Every line is")
    source.write_text("[" * 100_000)
    assert "JSON" in refusal(source)


@pytest.mark.parametrize(
    "value",
    [
        {"train": [["a", "x"], ["b", "y"]], "oos_val": [["c", "oos"]]},
        [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "c", "label": "oos"}],
        {"x": ["a"], "y": ["b"], "oos": ["c"]},
        {"x": [{"tokens": ["a"], "h": []}], "y": [{"tokens": ["b"]}], "oos": [{"tokens": ["c"]}]},
    ],
)
def test_json_of_every_shape(write, value):
    source = write({"t.json": json.dumps(value)}) / "t.json"
    assert columns(imported(source, exclude=["oos"]), "text", "label") == [("a", "x"), ("b", "y")]


def test_json_of_no_known_shape(write):
    source = write({"t.json": '{"a": {"b": 1}}'}) / "t.json"
    assert refusal(source).startswith(f"{source}: JSON of no known shape. It may be a list of objects,")
    source.write_text('{"a": [["x"]]}')
    assert "['x']" in refusal(source)
    both = write({"one.json": "[]", "two.json": "[]"}, "both")
    assert refusal(both) == (
        f"{both}: holds 2 JSON files: 'one.json', 'two.json'. Name the one that holds the examples"
    )


def test_groups_from_a_file(write):
    source = write({"t.csv": "text,label\na,x\nb,y\nc,z\n", "domains.json": '{"one": ["x", "y"], "two": ["z"]}'})
    groups = source / "domains.json"
    for whole in (source / "t.csv", source):  # the folder too: the file of groups is no data
        dataset = imported(whole, group=str(groups))
        assert columns(dataset, "label", "group") == [("x", "one"), ("y", "one"), ("z", "two")]
        assert dataset.info.group == "domain"
    table = source / "t.csv"
    groups.write_text('{"one": ["x"]}')
    assert refusal(table, group=str(groups)) == (
        f"{groups}: 2 classes are in no group: 'y', 'z'. Add them, or leave them out by --exclude-label"
    )
    groups.write_text('{"one": ["x"], "two": ["x"]}')
    assert refusal(table, group=str(groups)) == (
        f"{groups}: the class 'x' is in two groups, 'one' and 'two'. Groups never share a class"
    )
    groups.write_text("[]")
    assert refusal(table, group=str(groups)).startswith(f"{groups}: not a map from groups to classes. It holds")
    groups.write_text("{")
    assert refusal(table, group=str(groups)).startswith(f"{groups}: not JSON.")
    groups.unlink()
    assert refusal(table, group=str(groups)) == f"{groups}: cannot be read (No such file or directory). Check --group"


# Parquet


def hugging_face(png, names=("cat", "dog"), labels=(1, 0, 1)) -> pa.Table:
    cells = [{"bytes": png(i), "path": f"{i}.png"} for i in range(len(labels))]
    table = pa.table({"img": cells, "labels": pa.array(labels, pa.int64())})
    features = {"img": {"_type": "Image"}, "labels": {"names": list(names), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_the_hugging_face_layout(tmp_path, png):
    folder = tmp_path / "beans"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("card")
    (folder / "dataset_infos.json").write_text("{}")
    pq.write_table(hugging_face(png), folder / "data/train-00000-of-00001.parquet")
    dataset = imported(folder)
    assert dataset.modality == "image"
    assert dataset.column("label") == ["cat", "dog", "dog"]
    assert dataset.raw([0]) == [png(1)]
    one = imported(folder / "data/train-00000-of-00001.parquet", label="labels", content="img")
    assert one.column("label") == ["cat", "dog", "dog"]


def test_labels_outside_the_schema_and_cells_without_bytes(tmp_path, png):
    source = tmp_path / "t.parquet"
    pq.write_table(hugging_face(png, labels=(0, -1, 1)), source)
    assert refusal(source).startswith(f"{source}, row 2: the labels is -1, outside the 2 names of the schema. It is")
    table = hugging_face(png)
    cells = [*table["img"].to_pylist()[:2], {"bytes": None, "path": "/data/3.png"}]
    pq.write_table(table.set_column(0, "img", pa.array(cells)), source)
    assert refusal(source).startswith(f"{source}, row 3: the cell names the file '/data/3.png' and does not hold it.")


def test_parquet_of_texts_and_damaged_parquet(tmp_path):
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"sentence": ["a", "b", None], "label": [1.5, 2.5, 3.5]}), source)
    assert refusal(source).startswith(f"{source}, row 3: the text is missing.")
    pq.write_table(pa.table({"sentence": ["a", "b"], "label": [[1], [2]]}), source)
    what = refusal(source, kind="classify")
    assert what.startswith(f"{source}, row 1: the label is '[1]', not a single name.")
    source.write_bytes(source.read_bytes()[:-20])
    line = refusal(source)
    assert line.startswith(f"{source}: not complete Parquet (")
    assert line.endswith("). Download it again")


def test_our_own_datasets_can_be_read_back(tmp_path, wav):
    table = make_table("audio", [wav(i) for i in range(3)], ["a", "b", "b"], ["g", "g", "h"], ["ann", "bo", "ann"])
    info, _ = import_source(write_text(tmp_path), "mine")
    folder = write_dataset(tmp_path / "data", info.model_copy(update={"modality": "audio", "domain": "voice"}), table)
    again = imported(folder)
    assert columns(again, "label", "group", "domain") == [("a", "g", "ann"), ("b", "g", "bo"), ("b", "h", "ann")]
    assert again.raw() == read_dataset(folder).raw()


def write_text(folder: Path) -> Path:
    path = folder / "any.csv"
    path.write_text("text,label\na,x\nb,y\n")
    return path


def test_a_large_source_makes_several_arrays(write, png, monkeypatch):
    source = write({f"{c}/{i}.png": png(i) for c in "ab" for i in range(6)})
    whole = imported(source)
    monkeypatch.setattr("quickstudy.ingest.importers.keeping._CELLS", 500)
    parts = imported(source)
    assert parts.table["image"].num_chunks > 3
    assert parts.table.combine_chunks().equals(whole.table)


# Queries


def test_queries(write, png, pack):
    flat = read_queries(write({"2.png": png(2), "1.png": png(1)}))
    assert (flat.modality, flat.paths, flat.targets) == ("image", ["1.png", "2.png"], None)
    assert flat.contents == [png(1), png(2)]
    labelled = read_queries(pack({"b/1.png": png(1), "a/1.png": png(2)}))
    assert labelled.targets == ["a", "b"]
    one = read_queries(write({"1.png": png(1)}, "other") / "1.png")
    assert one.contents == [png(1)]
    lines = read_queries(write({"t.txt": "first\n\nsecond\n"}, "texts") / "t.txt")
    assert (lines.contents, lines.targets) == (["first", "second"], None)
    table = read_queries(write({"t.csv": "text,label\na,x\nb,\n"}, "table") / "t.csv")
    assert (table.contents, table.targets) == (["a", "b"], None)
    with pytest.raises(QuickstudyError, match="the text is empty"):
        read_queries(write({"u.csv": 'text\na\n""\n'}, "table") / "u.csv")


def test_one_file_is_no_dataset(write, png):
    source = write({"1.png": png(1)}) / "1.png"
    assert (
        refusal(source) == f"{source}: a single file is no dataset. Name the folder that holds a folder for each class"
    )


def test_reading_needs_no_torch():
    code = "import sys; import quickstudy.ingest.importers.source; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "pyarrow" in loaded
    assert not loaded & {"torch", "pandas", "sklearn", "mlflow"}


def test_progress_is_told(write, png):
    told: list[tuple[int, int]] = []
    imported(write({f"{c}/1.png": png(1) for c in "abc"}), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_black_and_white_pictures_survive(write):
    buffer = io.BytesIO()
    Image.new("1", (105, 105), 1).save(buffer, format="PNG")
    dataset = imported(write({"a/1.png": buffer.getvalue(), "b/1.png": buffer.getvalue()}))
    assert dataset.raw([0]) == [buffer.getvalue()]
