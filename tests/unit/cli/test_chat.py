"""`quickstudy chat` as it is used: lines in, replies out, and what was taught in a file."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from quickstudy.config import Settings
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model

Run = Callable[..., tuple[int, str, str]]
FAQ = (
    "question,answer\n"
    "Where is my parcel?,Look at the number in our mail.\n"
    "When will it arrive?,Look at the number in our mail.\n"
    'I want my money back,"Within 30 days, by our form."\n'
    'How do I get a refund?,"Within 30 days, by our form."\n'
)


@pytest.fixture
def talk(run: Run, workspace: Path, tiny_params, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Say lines to the chat of an FAQ, in a project with the sentence vectors as they are for a model."""
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    (workspace / "params.yaml").write_text(yaml.safe_dump(tiny_params))
    (workspace / "faq.csv").write_text(FAQ)
    settings = Settings.model_validate(tiny_params)
    torch.manual_seed(0)
    shape = settings.model.model_copy(update={"dimension": 384})
    save_model(MetaModel(settings.inputs, shape, {"text"}), workspace / "model", {})

    def talk(lines: str | bytes, *options: object, faq: object = "faq.csv") -> tuple[int, str, str]:
        data = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return run("chat", faq, "--model", "model", *options)

    return talk


def test_a_pipe_gets_a_reply_to_each_line(talk: Run) -> None:
    code, out, err = talk("where is my parcel\nplease refund my money\n/help\n")
    first, second, *helped = out.splitlines()
    assert (code, err) == (0, "") and first == "Look at the number in our mail."
    assert second == "Within 30 days, by our form." and any("/teach ANSWER" in line for line in helped)


def test_what_is_taught_is_kept_and_known_the_next_time(talk: Run) -> None:
    dogs = "May I bring my dog?\n/teach Yes.\n"
    code, out, err = talk(dogs + "can I bring a dog\n", "--learned", "taught.jsonl")
    assert (code, err) == (0, "") and out.splitlines()[-1] == "Yes."
    (line,) = Path("taught.jsonl").read_text().splitlines()
    assert json.loads(line) == {"question": "May I bring my dog?", "answer": "Yes."}
    assert talk("can I bring a dog\n", "--learned", "taught.jsonl")[1] == "Yes.\n"
    assert talk("/undo\n", "--learned", "taught.jsonl")[1] == "Forgotten: May I bring my dog?\n"
    assert Path("taught.jsonl").read_text() == "" and talk("hi\n", "--learned", "taught.jsonl")[0] == 0
    assert [path.name for path in Path().iterdir() if path.suffix == ".part"] == []
    code, out, err = talk(dogs)
    assert code == 0 and "1 that were taught are forgotten now; --learned FILE keeps them" in err


def test_a_choice_is_learned(talk: Run) -> None:
    code, out, _ = talk("is it\n1\nis it\n", "--close", 0, "--learned", "taught.jsonl")
    lines = out.splitlines()
    assert code == 0 and len(Path("taught.jsonl").read_text().splitlines()) == 1
    assert lines[1].startswith("  1. ") and lines[2].startswith("  2. ") and lines[3] == lines[4]


def test_bytes_that_are_no_text_do_no_harm(talk: Run) -> None:
    lines = b"\xff\xfe\x00 what\x00\x1b[31m\n/teach \x00Yes\x07.\nwhere is my parcel\n"
    code, out, err = talk(lines, "--learned", "taught.jsonl")
    assert (code, err) == (0, "") and out.splitlines()[-2:] == ["Yes.", "Look at the number in our mail."]
    assert talk("where is my parcel\n", "--learned", "taught.jsonl")[0] == 0


def test_the_same_of_other_tables(talk: Run) -> None:
    rows = [dict(zip(("question", "answer"), line.split(",", 1), strict=True)) for line in FAQ.splitlines()[1:]]
    Path("faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert talk("where is my parcel\n", faq="faq.jsonl")[1] == "Look at the number in our mail.\n"


@pytest.mark.parametrize(
    ("faq", "line"),
    [
        ("question,reply\na,b\n", "no column 'answer'. It has 'reply'"),
        ("question,answer\na,x\nb\n", "line 3: 1 fields, the header has 2"),
        ("question,answer\na,x\nb,\n", "line 3: the answer is empty"),
        ("question,answer\na,x\nb,x\n", "the one class 'x'"),
        ("question,answer\na,x\nA?,y\n", "the question 'A?' has two answers"),
    ],
)
def test_an_faq_that_cannot_be_used_is_one_line(talk: Run, faq: str, line: str) -> None:
    Path("bad.csv").write_text(faq)
    code, out, err = talk("hi\n", faq="bad.csv")
    assert (code, out) == (2, "") and line in err and err.count("\n") == 1


def test_other_mistakes_are_one_line(talk: Run) -> None:
    Path("taught.jsonl").write_text("{")
    before = Path("taught.jsonl").read_bytes()
    for options, line in (
        (("--learned", "taught.txt"), "taught.txt: what is taught is kept as JSON Lines. Name it .jsonl"),
        (("--learned", "taught.jsonl"), "taught.jsonl"),
        (("--model", "nowhere"), "is no model folder"),
    ):
        code, out, err = talk("hi\n/teach x\n", *options)
        assert (code, out) == (2, "") and line in err and err.count("\n") == 1
    assert Path("taught.jsonl").read_bytes() == before
    assert "nowhere.csv" in talk("hi\n", faq="nowhere.csv")[2]
