import unicodedata
from collections import Counter, defaultdict

import numpy as np
import pytest

from quickstudy.data.media import decode_image
from quickstudy.starter import glyphs


@pytest.fixture(scope="module")
def chosen() -> list[tuple[str, str]]:
    return glyphs.characters()


def test_enough_characters_of_enough_scripts_each_once(chosen: list[tuple[str, str]]) -> None:
    scripts = Counter(script for script, _ in chosen)
    assert len(scripts) >= 15
    assert 1500 <= len(chosen) <= 1800
    assert max(Counter(char for _, char in chosen).values()) == 1


def test_no_numeral_of_any_script(chosen: list[tuple[str, str]]) -> None:
    for _, char in chosen:
        assert unicodedata.category(char) not in {"Nd", "Nl", "No"}
        assert unicodedata.numeric(char, None) is None


def test_one_of_the_scripts_keeps_a_shape_that_several_share(chosen: list[tuple[str, str]]) -> None:
    kept = {char for _, char in chosen}
    for latin, *others in ("AΑА", "PΡР", "XΧХ", "TΤТ", "oοо"):
        assert not kept & set(others), f"{others} look like {latin}"
    assert {"A", "P", "X", "T"} <= kept


def test_letters_that_pass_for_digits_are_left_out(chosen: list[tuple[str, str]]) -> None:
    # Ezh and Ze are 3, capital S of Armenian and Latin are 5 and 8, small l and capital I are 1.
    assert not {char for _, char in chosen} & set("ЗӡՏIlߠ")


def test_neither_dots_nor_filled_shapes(chosen: list[tuple[str, str]]) -> None:
    assert not {char for _, char in chosen} & set("⋅∙∎ᐧ")


def test_drawings_are_light_strokes_on_dark_within_the_frame_and_all_differ() -> None:
    info, table = glyphs.build(limit=1)
    rows = table.to_pylist()
    assert info.name == "glyphs" and info.modality == "image" and info.meta_split is None
    assert len({row["image"]["bytes"] for row in rows}) == len(rows)
    by_label = defaultdict(list)
    for row in rows:
        assert row["label"].startswith(row["group"] + "/")
        by_label[row["label"]].append(decode_image(row["image"]["bytes"]))
    assert len(by_label) == len(glyphs.SCRIPTS)
    assert {len(drawings) for drawings in by_label.values()} == {glyphs.DRAWINGS}
    pictures = np.array([drawing for drawings in by_label.values() for drawing in drawings])
    assert pictures.shape[1:] == (28, 28)
    assert (pictures.max((1, 2)) > 150).all(), "every drawing has ink"
    assert (np.median(pictures, (1, 2)) < 128).mean() > 0.99, "the ground is dark"
    ink = pictures / 255
    assert (ink[:, 1:-1, 1:-1].sum((1, 2)) >= 0.75 * ink.sum((1, 2))).mean() > 0.99, "little is cut off by the edge"


def test_thinning_leaves_a_line_in_one_piece() -> None:
    from scipy import ndimage

    ink = np.zeros((40, 40), bool)
    ink[5:35, 8:15] = True  # an L of thick strokes
    ink[28:35, 8:34] = True
    line = glyphs._thin(ink)
    assert 40 < line.sum() < 60
    assert (line <= ink).all()
    assert ndimage.label(line, np.ones((3, 3)))[1] == 1
