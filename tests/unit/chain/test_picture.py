import xml.etree.ElementTree as tree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from quickstudy.errors import QuickstudyError
from quickstudy.lineage.links import Link
from quickstudy.lineage.picture import COLUMNS, FACTS, draw, write_picture


def links(facts: int = 3) -> list[Link]:
    names = [name for column in COLUMNS for name in column]
    long = "a long value of many words that takes more than one line of the box"
    return [Link(name, f"the {name}", tuple((f"fact {i}", long) for i in range(facts)), {}) for name in names]


def test_the_picture_says_every_link_and_nothing_lies_outside_or_on_another(tmp_path: Path) -> None:
    figure = draw(links(FACTS + 4), "Lineage of models:/quickstudy/1")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    said = {text.get_text() for text in axes.texts}
    assert {f"the {name}" for column in COLUMNS for name in column} < said
    assert "and 4 more" in said and "and 4 before" in said  # of the moves of aliases the last are shown
    boxes = [patch.get_window_extent() for patch in axes.patches if "FancyBbox" in type(patch).__name__]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max)
        assert not any(box.overlaps(other) for other in boxes[:i])
    for text in axes.texts[1:]:
        extent = text.get_window_extent()
        assert any(box.contains(*extent.min) and box.contains(*extent.max) for box in boxes), text.get_text()


def test_png_and_svg_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "a.svg", "b.png", "b.svg"):
        write_picture(links(), tmp_path / name, "Lineage")
    for form in ("png", "svg"):
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()
    assert tree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert np.asarray(Image.open(tmp_path / "a.png")).std() > 10


def test_a_run_without_a_version_is_drawn_too(tmp_path: Path) -> None:
    few = [link for link in links(0) if link.name not in ("version", "promotions")]
    write_picture(few, tmp_path / "run.png", "Lineage of runs:/1")
    assert (tmp_path / "run.png").stat().st_size > 5000


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match=r"lineage.pdf: is neither a .png nor an .svg file"):
        write_picture(links(), tmp_path / "lineage.pdf", "Lineage")
    assert list(tmp_path.iterdir()) == []
