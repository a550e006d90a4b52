"""The layouts in which images and recordings are published and exported, each with what it is read as."""

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from quickstudy.config import load_settings
from quickstudy.data.dataset import Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.checks import check_datasets
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source, read_more, read_queries

SETTINGS = load_settings(Path(__file__).parents[3] / "params.yaml")


def picture(number: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("L", (6, 6), bytes((number * 37 + i * i) % 256 for i in range(36))).save(buffer, form)
    return buffer.getvalue()


def read(source: Path, **options) -> tuple[Dataset, list[str]]:
    notes: list[str] = []
    return Dataset(*import_source(source, "mine", ImportOptions(**options), note=notes.append)), notes


def labels(dataset: Dataset) -> dict[str, str]:
    """File name → class."""
    paths = [cell["path"] for cell in dataset.table["image"].to_pylist()]
    return dict(zip(paths, dataset.column("label"), strict=True))


def refused(source: Path, **options) -> str:
    with pytest.raises(QuickstudyError) as caught:
        read(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(header: str, *rows: str) -> str:
    return "\n".join([header, *rows, ""])


# A table that names the files

NAMED = {
    "metadata.csv of Hugging Face": (
        {"train/a.png": 1, "train/b.png": 2, "train/metadata.csv": table("file_name,label", "a.png,cat", "b.png,dog")},
        {"train/a.png": "cat", "train/b.png": "dog"},
    ),
    "one metadata.csv a split": (
        {
            "train/a.png": 1,
            "test/a.png": 2,
            "train/metadata.csv": table("file_name,label", "a.png,cat"),
            "test/metadata.csv": table("file_name,label", "a.png,dog"),
        },
        {"train/a.png": "cat", "test/a.png": "dog"},
    ),
    "metadata.jsonl": (
        {
            "a.png": 1,
            "b.png": 2,
            "metadata.jsonl": '{"file_name": "a.png", "label": "x"}\n{"file_name": "b.png", "label": "y"}\n',
        },
        {"a.png": "x", "b.png": "y"},
    ),
    "Kaggle's ids without suffix, and a test folder": (
        {
            "train/001.jpg": 1,
            "train/002.jpg": 2,
            "test/003.jpg": 3,
            "labels.csv": table("id,breed", "001,pug", "002,husky"),
            "sample_submission.csv": table("id,breed", "003,pug"),
        },
        {"train/001.jpg": "pug", "train/002.jpg": "husky"},
    ),
    "numbers that lost their zeros in a spreadsheet": (
        {"img/0001.png": 1, "img/0002.png": 2, "img/0010.png": 3, "t.csv": table("id,class", "1,x", "2,y", "10,x")},
        {"img/0001.png": "x", "img/0002.png": "y", "img/0010.png": "x"},
    ),
    "paths of the machine that labelled": (
        {
            "up/1/s-a.png": 1,
            "up/1/s-b.png": 2,
            "export.csv": table("image,choice", "/data/up/1/s-a.png,x", "/data/up/1/s-b.png,y"),
        },
        {"up/1/s-a.png": "x", "up/1/s-b.png": "y"},
    ),
    "paths of Windows": (
        {"i/a.png": 1, "i/b.png": 2, "t.csv": table("path;label", "i\\a.png;x", "i\\b.png;y")},
        {"i/a.png": "x", "i/b.png": "y"},
    ),
    "classes in folders too: the table wins, as it says more": (
        {"x/a.png": 1, "y/b.png": 2, "t.csv": table("file,label", "x/a.png,first", "y/b.png,second")},
        {"x/a.png": "first", "y/b.png": "second"},
    ),
    "a table about something else beside folders of classes": (
        {"x/a.png": 1, "y/b.png": 2, "sizes.csv": table("file,width,height", "a.png,6,6", "b.png,6,6")},
        {"x/a.png": "x", "y/b.png": "y"},
    ),
}


@pytest.mark.parametrize("layout", NAMED)
@pytest.mark.parametrize("packed", [False, True])
def test_a_table_names_the_files(layout, packed, write, pack):
    files, expected = NAMED[layout]
    content = {name: picture(what) if isinstance(what, int) else what.encode() for name, what in files.items()}
    dataset, _ = read(pack(content) if packed else write(content))
    assert labels(dataset) == expected


def test_recordings_beside_a_table_with_numbers_and_names(write, wav):
    rows = [f"1-{i}-A.wav,{i % 2},{'dog' if i % 2 else 'rain'},{i % 5}" for i in range(6)]
    files = {f"audio/1-{i}-A.wav": wav(i) for i in range(6)}
    dataset, notes = read(write({**files, "meta/esc50.csv": table("filename,target,category,fold", *rows)}))
    assert Counter(dataset.column("label")) == {"dog": 3, "rain": 3}
    assert notes[0] == (
        "meta/esc50.csv: 'filename' names the files, and the column 'category' their targets (--file, --label)"
    )


def test_a_column_for_each_name_is_tags(write):
    rows = ["a.png,1,0", "b.png,1,1", "c.png,0,1"]
    files = {f"train/{name}.png": picture(i) for i, name in enumerate("abc")}
    dataset, _ = read(write({**files, "train/_classes.csv": table("filename, cat, dog", *rows)}))
    assert dataset.info.kind == "tag"
    assert [sorted(tags) for tags in dataset.column("labels")] in ([["cat"], ["cat", "dog"], ["dog"]],)


def test_what_is_missing_and_what_is_left_over_is_counted(write):
    rows = ["a,x", "b,y", "gone,x"]
    source = write({"a.png": picture(1), "b.png": picture(2), "c.png": picture(3), "t.csv": table("id,label", *rows)})
    dataset, notes = read(source)
    assert len(dataset) == 2
    assert notes[1:3] == [
        "1 rows name files that are not there, and are left out",
        "1 files are named by no row, and are left out",
    ]


def test_columns_that_must_be_told(write):
    rows = [f"{i},{'u' if i % 2 else 'v'},{'p' if i < 3 else 'q'}" for i in range(6)]
    source = write({**{f"{i}.png": picture(i) for i in range(6)}, "t.csv": table("nr,colour,shape", *rows)})
    assert refused(source).endswith(
        "t.csv: no usual name of a column of classes among 'colour', 'shape'. Name it by --label"
    )
    assert set(labels(read(source, label="shape")[0]).values()) == {"p", "q"}
    assert "no table with a column 'name' that names its files" in refused(source, file="name")
    assert refused(source, file="nr", label="size").endswith("Check --file and --label")


def test_a_name_that_several_files_have_costs_its_row(write):
    files = {"p/1.png": picture(1), "q/1.png": picture(2), "2.png": picture(3), "3.png": picture(4)}
    source = write({**files, "t.csv": table("file,label", "1.png,x", "2.png,x", "3.png,y")})
    assert "t.csv, line 2: '1.png' may be p/1.png or q/1.png. It is the only bad one" in refused(source)
    assert labels(read(source, skip_bad=True)[0]) == {"2.png": "x", "3.png": "y"}


def test_groups_and_domains_come_from_the_table_too(write):
    rows = [f"{i}.png,{'xy'[i % 2]},{'ann' if i < 2 else 'bob'}" for i in range(4)]
    source = write({**{f"{i}.png": picture(i) for i in range(4)}, "t.csv": table("file,label,who", *rows)})
    dataset, _ = read(source, domain="who", group="class")
    assert Counter(dataset.column("domain")) == {"ann": 2, "bob": 2} and dataset.info.domain == "who"


def test_more_of_it_is_read_alike(write):
    first, second = ({f"{n}{i}.png": picture(10 * j + i) for i in range(2)} for j, n in enumerate("ab"))
    source = write({**first, "t.csv": table("id,label", "a0,x", "a1,y")})
    more = write({**second, "t.csv": table("id,label", "b0,x", "b1,y")}, "more")
    dataset, _ = read(source)
    assert read_more(more, dataset).column("label").to_pylist() == ["x", "y"]


# Splits are no classes


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "test"),
        ("Training", "Validation", "Test"),
        ("train2017", "val2017"),
        ("train_images", "test_images"),
        ("bounding_box_train", "bounding_box_test", "query", "gt_bbox"),
        ("images/train", "images/test"),
    ],
)
def test_folders_of_a_split_are_no_classes(folders, write):
    source = write({f"{folder}/{i}.png": picture(7 * j + i) for j, folder in enumerate(folders) for i in range(2)})
    told = refused(source)
    assert "hold parts of a publisher's split, and nothing says the class of a file. Put each class into" in told
    by_hand, _ = read(source, pattern="{class}/{}")
    assert set(by_hand.column("label")) == {folder.split("/")[-1] for folder in folders}


def test_a_class_may_be_called_train(write):
    source = write({f"{name}/{i}.png": picture(7 * j + i) for j, name in enumerate(("train", "bus")) for i in range(2)})
    assert set(read(source)[0].column("label")) == {"train", "bus"}


def test_splits_above_classes_are_joined(write):
    parts = [f"{split}/{name}" for split in ("train2017", "val2017") for name in ("x", "y")]
    dataset, notes = read(
        write({f"{part}/{i}.png": picture(7 * j + i) for j, part in enumerate(parts) for i in range(2)})
    )
    assert Counter(dataset.column("label")) == {"x": 4, "y": 4}
    assert notes[0].startswith("joined train2017, val2017")


def test_a_split_may_be_part_of_a_longer_name(write):
    parts = [f"20news-bydate-{split}/{name}" for split in ("train", "test") for name in ("x", "y")]
    source = write({f"{part}/{i}.png": picture(7 * j + i) for j, part in enumerate(parts) for i in range(2)})
    assert Counter(read(source)[0].column("label")) == {"x": 4, "y": 4}
    names = ("test-tube", "train-toy")  # two classes
    toys = write({f"{name}/{i}.png": picture(7 * j + i) for j, name in enumerate(names) for i in range(2)}, "toys")
    assert set(read(toys)[0].column("label")) == set(names)


def test_unlabelled_splits_can_be_asked_about(write):
    queries = read_queries(write({"train/1.png": picture(1), "test/2.png": picture(2)}))
    assert queries.targets is None and len(queries.contents) == 2


# Files that are lost


def test_a_picture_beside_the_classes_is_one_bad_one(write):
    files = {f"{c}/{i}.png": picture(9 * j + i) for j, c in enumerate("ab") for i in range(3)}
    source = write({**files, "overview.png": picture(50)})
    assert refused(source).endswith(
        "overview.png: is in no class folder. It is the only bad one among 7 examples: mend them or leave them out by "
        "--skip-bad"
    )
    assert len(read(source, skip_bad=True)[0]) == 6


def test_a_hidden_folder_can_be_a_class_and_a_programs_own_is_none(write):
    names = [".net", "java", ".git", ".cache", ".DS_Store", "._java", ".ipynb_checkpoints", "__MACOSX"]
    source = write({f"{name}/{i}.png": picture(5 * j + i) for j, name in enumerate(names) for i in range(2)})
    assert set(read(source)[0].column("label")) == {".net", "java"}


@pytest.mark.parametrize(("form", "suffix"), [("JPEG", "jfif"), ("JPEG", "JPE"), ("PPM", "pgm"), ("BMP", "dib")])
def test_suffixes_that_the_library_reads(form, suffix, write):
    source = write({f"{c}/{i}.{suffix}": picture(9 * j + i, form) for j, c in enumerate("ab") for i in range(2)})
    assert len(read(source)[0]) == 4


def test_aiff_is_read(write, wav):
    dataset, _ = read(
        write({f"{c}/{i}.aiff": wav(9 * j + i, form="AIFF") for j, c in enumerate("ab") for i in range(2)})
    )
    assert len(dataset) == 4


def test_a_class_that_would_be_lost_is_refused_and_one_that_loses_some_is_named(write):
    files = {f"{c}/{i}.png": picture(9 * j + i) for j, c in enumerate("ab") for i in range(2)}
    assert refused(write({**files, "c/1.heic": b"x", "c/2.heic": b"y"})).endswith(
        "/c: none of its files can be read (2 × .heic), so that it would be lost. Convert them, as by "
        "`ffmpeg -i OLD.m4a NEW.wav` or to .png, or take the folder away"
    )
    _, notes = read(write({**files, "b/3.heic": b"x", "docs/1.xml": b"<a/>", "LICENSE.txt": b"MIT"}, "other"))
    assert notes[0] == "ignored 3 other files (1 × .txt, 1 × .heic, 1 × .xml), of b (1)"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.json", "t.zip", "a/1.png", "a/1.wav", "t.txt"])
def test_what_git_lfs_leaves_is_told_in_one_way(name, write):
    source = write({name: POINTER, **({"b/1.png": picture(1)} if name.endswith("png") else {})})
    told = refused(source if "/" in name else source / name, skip_bad=True)
    assert "a Git LFS pointer, and not the file. Fetch the files themselves: git lfs pull" in told


# Links


def test_the_hubs_cache_is_read_through_its_links(tmp_path):
    hub = tmp_path / "datasets--me--shapes"
    revision = hub / "snapshots" / "abc"
    for number, name in enumerate(["x/1.png", "x/2.png", "y/1.png", "y/2.png"]):
        blob = hub / "blobs" / f"{number:040x}"
        link = revision / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(picture(number))
        link.symlink_to(os.path.relpath(blob, link.parent))
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text("abc")
    (hub / "snapshots" / "older").mkdir()
    assert (
        labels(read(revision)[0])
        == labels(read(hub)[0])
        == {"x/1.png": "x", "x/2.png": "x", "y/1.png": "y", "y/2.png": "y"}
    )
    (revision / "y/3.png").symlink_to("/etc/hostname")
    assert "y/3.png: a link to a file outside the source" in refused(revision)


def test_linked_class_folders(tmp_path, write):
    pool = write({f"{c}/{i}.png": picture(9 * j + i) for j, c in enumerate("abc") for i in range(2)}, "pool")
    source = tmp_path / "split"
    source.mkdir()
    for name in "ab":
        (source / name).symlink_to(pool / name)
    assert "a: a link to a folder outside the source" in refused(source)
    assert set(read(source, follow_links=True)[0].column("label")) == {"a", "b"}
    (pool / "d").symlink_to(pool / "a")
    assert Counter(read(pool)[0].column("label")) == dict.fromkeys("abcd", 2)
    (pool / "a" / "loop").symlink_to(pool)
    assert "loop: a link to a folder that it lies in" in refused(pool)


# Names in archives


def zipped(
    path: Path, names: list[str], encoding: str, extra: Callable[[str, bytes], bytes] = lambda n, r: b""
) -> Path:
    """A .zip whose names are in an encoding that it does not say."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            raw = name.encode(encoding)
            member = zipfile.ZipInfo("x" * len(raw))
            member.extra = extra(name, raw)
            archive.writestr(member, picture(number))
    data = path.read_bytes()
    for name in names:  # the stand-ins are replaced in order, in the local headers and then in the directory
        raw = name.encode(encoding)
        data = data.replace(b"x" * len(raw), raw, 1)
    for name in names:
        raw = name.encode(encoding)
        data = data.replace(b"x" * len(raw), raw, 1)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("utf-8", ["Käse", "Brötchen"]),
        ("gbk", ["猫", "狗"]),
        ("gbk", ["汽车", "图片", "测试"]),
        ("shift_jis", ["表示", "ソース", "予定"]),
        ("cp932", ["犬の写真", "ネコ"]),
        ("euc_kr", ["고양이", "강아지"]),
        ("big5", ["貓咪", "圖片"]),
        ("cp866", ["кошка", "собака"]),
        ("cp1251", ["Кошка", "Собака"]),
        ("cp850", ["Äpfel", "Brötchen"]),
        ("cp1252", ["Señal", "façade"]),
    ],
)
def test_names_that_do_not_say_their_encoding(encoding, classes, tmp_path):
    names = [f"{name}/{'abcdefg'[i] * (3 + j)}.png" for j, name in enumerate(classes) for i in range(2)]
    dataset, notes = read(zipped(tmp_path / "a.zip", names, encoding))
    assert set(dataset.column("label")) == set(classes)
    assert notes[0].startswith("names in the archive are read as ") and "say --encoding" in notes[0]
    told, _ = read(tmp_path / "a.zip", encoding=encoding)
    assert set(told.column("label")) == set(classes)


def test_an_encoding_that_does_not_fit_or_does_not_exist(tmp_path):
    source = zipped(tmp_path / "a.zip", ["Käse/aaa.png", "Brot/bbbb.png"], "cp1252")
    assert "a name in the archive is not utf-8. Leave --encoding out" in refused(source, encoding="utf-8")
    assert refused(source, encoding="klingon").startswith("--encoding klingon: no such encoding")


def test_the_unicode_path_of_a_member_counts(tmp_path):
    def field(name: str, raw: bytes) -> bytes:
        body = struct.pack("<BL", 1, zlib.crc32(raw)) + name.encode()
        return struct.pack("<HH", 0x7075, len(body)) + body

    dataset, notes = read(zipped(tmp_path / "a.zip", ["猫/aa.png", "狗/bbb.png"], "gbk", field))
    assert set(dataset.column("label")) == {"猫", "狗"} and not any("archive" in note for note in notes)


def test_members_with_backslashes_are_paths(pack):
    dataset, _ = read(pack({f"shapes\\{c}\\{i}.png": picture(9 * j + i) for j, c in enumerate("ab") for i in range(2)}))
    assert set(dataset.column("label")) == {"a", "b"}


# One class in several spellings


def texts(*names: str) -> str:
    return table("text,label", *[f'text number {i} of {i % 7},"{name}"' for i, name in enumerate(names)])


@pytest.mark.parametrize(
    ("spellings", "one"),
    [
        (["late fee", "late fee", "late  fee"], "late fee"),
        (["late fee", "late fee", "late\u00a0fee"], "late fee"),
        (["caf\u00e9", "caf\u00e9", "cafe\u0301"], "caf\u00e9"),
        (["1", "1.0", "1"], "1"),
        (["a\u200bb", "ab", "ab"], "ab"),
    ],
)
def test_what_differs_in_blanks_form_or_number_is_one(spellings, one, write):
    dataset, notes = read(write({"t.csv": texts(*spellings, "other")}) / "t.csv")
    assert set(dataset.column("label")) == {one, "other"}
    if len(set(map(str.strip, spellings))) > 1 and "cafe\u0301" not in spellings:
        assert notes[0].startswith("1 spellings of classes are joined with others")


def test_case_is_told_joined_where_it_is_asked_for_and_never_crosses_the_split(write):
    names = ["Cat", "cat", "cat", "US", "us", *map(str, range(10, 30))]
    source = write({"t.csv": texts(*names)}) / "t.csv"
    dataset, notes = read(source)
    assert {"Cat", "cat", "US", "us"} <= set(dataset.column("label"))
    assert notes[0].startswith("4 classes differ from others in case alone, as 'Cat' and 'cat', and stay apart;")
    group_of = dict(zip(dataset.column("label"), dataset.column("group"), strict=True))
    assert group_of["Cat"] == group_of["cat"] and group_of["US"] == group_of["us"] and len(set(group_of.values())) == 22
    joined, _ = read(source, ignore_case=True)
    assert {"cat", "US"} <= set(joined.column("label")) and len(set(joined.column("label"))) == 22
    found = [finding.what for finding in check_datasets([dataset], SETTINGS) if finding.kind in ("labels", "leak")]
    assert found == ["2 classes in several spellings, as 'Cat' and 'cat'"]


def test_more_examples_take_the_spelling_that_is_there(write):
    dataset, _ = read(write({"t.csv": texts(*["late fee"] * 3, "Refund", *map(str, range(10, 22)))}) / "t.csv")
    more = read_more(
        write({"m.csv": texts("late  fee", "late  fee", "refund", "late  fee")}, "more") / "m.csv", dataset
    )
    assert Counter(more.column("label").to_pylist()) == {"late fee": 3, "refund": 1}
    assert set(zip(more.column("label").to_pylist(), more.column("group").to_pylist(), strict=True)) == {
        ("late fee", "late fee"),
        ("refund", "Refund"),
    }
