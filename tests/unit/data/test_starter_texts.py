"""apidocs and phrasebook, and the handwritten digits."""

import re
import sys
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest

from quickstudy.data.dataset import DatasetInfo
from quickstudy.data.media import decode_image
from quickstudy.starter import apidocs, digits, phrasebook

Part = tuple[DatasetInfo, pa.Table]


@pytest.fixture(scope="module")
def docs() -> Part:
    return apidocs.build(packages=("networkx", "sqlalchemy", "click"))


@pytest.fixture(scope="module")
def phrases() -> Part:
    return phrasebook.build()


def test_docs_have_enough_sentences_a_module_and_no_sentence_twice(docs: Part) -> None:
    rows = docs[1].to_pylist()
    assert {row["group"] for row in rows} == {"networkx", "sqlalchemy", "click"}
    assert all(row["label"].startswith(row["group"] + ".") for row in rows)
    counts = Counter(row["label"] for row in rows)
    assert len(counts) >= 10
    assert all(apidocs.FEWEST <= count <= apidocs.MOST for count in counts.values())
    assert len({re.sub(r"\W", "", row["text"].lower()) for row in rows}) == len(rows)


def test_docs_are_prose(docs: Part) -> None:
    for text in docs[1].column("text").to_pylist():
        assert 40 <= len(text) <= 250
        assert text[0].isupper() and text.endswith(".")
        assert not re.search(r">>>|::|``|:param|http|[{}<>=\\]", text)


def test_docs_are_read_and_never_imported(docs: Part) -> None:
    # sqlalchemy may be loaded by another test; these modules of it are loaded by nobody.
    assert "sqlalchemy.dialects.oracle" not in sys.modules
    assert any(label == "sqlalchemy.dialects" for label in docs[1].column("label").to_pylist())


def test_sentences_lose_their_markup_and_code_is_skipped() -> None:
    doc = """Return a :class:`~thing.Graph` of ``n`` *nodes* that are joined in a ring.

    Indented text is code and not prose, whatever else it may say here.

    - a list item is no sentence of the kind that we are looking for.

    The second paragraph counts as well, being long enough. Too short.

    Parameters
    ----------
    n : The number of nodes, which is described in a whole sentence here.
    """
    from inspect import cleandoc

    assert list(apidocs._prose(cleandoc(doc).replace("Indented", "    Indented"))) == [
        "Return a thing.Graph of n nodes that are joined in a ring.",
        "The second paragraph counts as well, being long enough.",
    ]


def test_docs_do_not_depend_on_how_a_wheel_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apidocs, "version", lambda name: "1.2.3+cu999")
    info, _ = apidocs.build(packages=("click",))
    assert info.source == "docstrings of click 1.2.3"


def test_phrases_no_two_nearly_alike_in_a_class(phrases: Part) -> None:
    by_label = defaultdict(list)
    for row in phrases[1].to_pylist():
        by_label[row["label"]].append(frozenset(re.findall(r"[\w']+", row["text"].lower())))
    assert min(map(len, by_label.values())) >= 40
    for label, sentences in by_label.items():
        for i, these in enumerate(sentences):
            for those in sentences[:i]:
                assert len(these & those) < 0.75 * len(these | those), (label, these, those)


def test_phrases_no_sentence_under_two_labels(phrases: Part) -> None:
    texts = Counter(phrases[1].column("text").to_pylist())
    assert phrases[1].num_rows <= 3500
    assert max(texts.values()) == 1


def test_each_group_of_phrases_gives_an_episode(phrases: Part) -> None:
    info, table = phrases
    assert info.episode_scope == "group"
    assert info.meta_split == {"genre": "test", "sentiment": "test"}
    classes = defaultdict(set)
    for row in table.to_pylist():
        classes[row["group"]].add(row["label"])
    assert classes.pop("genre") == {"genre/news", "genre/blog"}
    assert classes.pop("sentiment") == {"sentiment/positive", "sentiment/negative"}
    assert len(classes) >= 6
    assert all(len(labels) >= 5 for labels in classes.values())


def test_phrases_are_finished(phrases: Part) -> None:
    for text in phrases[1].column("text").to_pylist():
        assert not re.search(r"[{}()|]|  |^\s|\s$|\s[,.?]", text), text


@pytest.mark.parametrize("group", ["genre", "sentiment"])
def test_no_single_word_decides(phrases: Part, group: str) -> None:
    """The question is answered by the way of writing and the meaning, not by one word of a template."""
    rows = [row for row in phrases[1].to_pylist() if row["group"] == group]
    first = rows[0]["label"]
    seen: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        for word in set(re.findall(r"[\w']+", row["text"].lower())):
            seen[word][row["label"] == first] += 1
    half = len(rows) / 2
    for word, count in seen.items():
        with_word, without = max(count.values()), min(count[True], count[False])
        accuracy = (with_word + half - without) / len(rows)
        assert accuracy < 0.85, word


def test_digits_are_scikit_learns_upright_and_light_on_dark() -> None:
    from sklearn.datasets import load_digits

    info, table = digits.build()
    assert info.meta_split == "test"
    labels = table.column("label").to_pylist()
    assert sorted(set(labels)) == list("0123456789") and len(labels) == 1797
    pictures = np.array([decode_image(cell["bytes"]) for cell in table.column("image").to_pylist()], dtype=float)
    assert pictures.shape == (1797, 28, 28)
    small = pictures[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean((2, 4))
    original = load_digits().images * (255 / 16)
    agreement = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, original, strict=True)]
    assert min(agreement) > 0.97
