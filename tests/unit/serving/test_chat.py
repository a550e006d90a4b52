"""The conversation, with a task that knows words alone; and once with sentences for real."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from quickstudy.client import Answer, Example, Neighbour, Quickstudy
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from quickstudy.serving.chat.chat import Chat, Entry, Reply


@dataclass
class Words:
    """A task that counts the words which a question shares with each class; sharing none is unknown."""

    examples: tuple[Example, ...] = ()
    asked: list[str] = field(default_factory=list)

    def answer(self, query: str) -> Answer:
        self.asked.append(query)
        words = set(query.lower().split())
        shared = {example: len(words & set(example.name.lower().split())) for example in self.examples}
        points = Counter({example.label: 0 for example in self.examples})
        for example, count in shared.items():
            points[example.label] = max(points[example.label], count)
        total = sum(points.values()) or 1
        chances = {label: count / total for label, count in points.items()}
        best = max(chances, key=chances.__getitem__)
        nearest = tuple(Neighbour(one, count / 9) for one, count in Counter(shared).most_common(2))
        return Answer(best, chances[best], chances, not any(shared.values()), 0.0, 0.0, nearest, "words")

    def add(self, examples: list[str], labels: list[str]) -> list[str]:
        first = 1 + max((int(one.id) for one in self.examples), default=0)
        new = [
            Example(str(i), label, name) for i, (name, label) in enumerate(zip(examples, labels, strict=True), first)
        ]
        self.examples += tuple(new)
        return [one.id for one in new]

    def remove(self, ids: list[str]) -> None:
        self.examples = tuple(one for one in self.examples if one.id not in ids)


def words(questions: list[str], labels: list[str]) -> Words:
    task = Words()
    task.add(questions, labels)
    return task


FAQ = [
    Entry("opening hours please", "From 8 to 19."),
    Entry("when is it open", "From 8 to 19."),
    Entry("rent a bike", "4 € an hour."),
    Entry("return a bike", "Bring it to the yard."),
    Entry("parking", "Behind the house."),
]


@pytest.fixture
def chat() -> Chat:
    return Chat(words, FAQ, close=0.7)


def said(chat: Chat, line: str, kind: str) -> Reply:
    reply = chat.say(line)
    assert reply.kind == kind, reply
    return reply


def test_a_likely_answer_is_given(chat: Chat) -> None:
    assert said(chat, "which opening hours", "answer") == Reply("answer", "From 8 to 19.")


def test_a_known_question_is_answered_word_for_word(chat: Chat) -> None:
    assert said(chat, "  Rent  a BIKE?! ", "answer").text == "4 € an hour."
    assert chat._task.asked == []  # the model was not asked
    chat.say("/wrong")
    assert chat._task.asked == ["Rent a BIKE?!"]


def test_accents_may_be_written_in_two_ways(chat: Chat) -> None:
    chat.say("cafe\u0301 nearby")
    chat.say("/teach Across the street.")
    assert said(chat, "Caf\u00e9 nearby?", "answer").text == "Across the street." and len(chat.taught) == 1


def test_between_close_ones_it_asks_back_and_learns(chat: Chat) -> None:
    asked = said(chat, "a bike today", "choose")
    assert asked.choices == ("rent a bike", "return a bike") and "  2. return a bike" in str(asked)
    reply = said(chat, "2", "answer")
    assert reply.text == "Bring it to the yard." and reply.learned
    assert chat.taught == [Entry("a bike today", "Bring it to the yard.")]
    assert said(chat, "A bike today?", "answer").text == "Bring it to the yard."
    assert not said(chat, "a bike today please", "answer").learned  # like the one that was learned


@pytest.mark.parametrize(("word", "answer"), [("the first one", "4 € an hour."), ("Second", "Bring it to the yard.")])
def test_a_choice_may_be_said_in_words(chat: Chat, word: str, answer: str) -> None:
    chat.say("a bike today")
    assert said(chat, word, "answer").text == answer


def test_neither_and_another_question(chat: Chat) -> None:
    chat.say("a bike today")
    assert "/teach" in said(chat, "Neither.", "unknown").text and chat.taught == []
    chat.say("a bike today")
    assert said(chat, "parking where", "answer").text == "Behind the house."
    assert said(chat, "1", "unknown").choices and chat.taught == []  # a number where nothing is asked is a question


def test_how_close_is_close_is_a_number() -> None:
    question = "rent or return a bike"  # 3 : 3 of them, or 3 : 2 for the next
    assert Chat(words, FAQ, close=0.9).say(question).kind == "choose"
    assert Chat(words, FAQ, close=0.9).say("please rent a bike now").kind == "answer"
    assert Chat(words, FAQ, close=0.6).say("please rent a bike now").kind == "choose"


def test_what_it_does_not_know_it_says_and_can_be_taught(chat: Chat) -> None:
    assert len(said(chat, "do dogs ride along", "unknown").choices) == 2
    taught = said(chat, "/teach Yes, in a basket.", "answer")
    assert taught.learned and chat.taught == [Entry("do dogs ride along", "Yes, in a basket.")]
    assert said(chat, "may dogs ride", "answer").text == "Yes, in a basket."


def test_a_choice_among_what_is_near_to_the_unknown_is_learned_too(chat: Chat) -> None:
    asked = said(chat, "xyz", "unknown")
    assert said(chat, "1", "answer").learned and said(chat, "xyz", "answer").text == chat.taught[0].answer
    assert asked.choices[0] in [entry.question for entry in FAQ]


def test_teaching_an_answer_that_is_there_adds_a_way_to_ask_for_it(chat: Chat) -> None:
    chat.say("late")
    chat.say("/teach from 8 to 19")
    assert chat.taught == [Entry("late", "From 8 to 19.")] and len(chat._answers) == 4
    assert said(chat, "late", "answer").text == "From 8 to 19."


def test_a_correction_overrules_what_was_known(chat: Chat) -> None:
    said(chat, "parking", "answer")
    assert said(chat, "/teach There is none.", "answer").learned
    assert said(chat, "parking", "answer").text == "There is none."
    assert "Behind the house." not in chat._answers.values()  # nobody can ask for it any more
    assert [one.name for one in chat._task.examples].count("parking") == 1
    again = Chat(words, FAQ, 0.5, chat.taught)
    assert again.say("parking").text == "There is none."


def test_wrong_shows_the_next_ones_until_there_is_none(chat: Chat) -> None:
    said(chat, "which opening hours", "answer")
    assert len(said(chat, "/wrong", "choose").choices) == 2
    assert len(said(chat, "/wrong", "choose").choices) == 1
    assert "/teach" in said(chat, "/wrong", "unknown").text
    said(chat, "which opening hours", "answer")
    said(chat, "/wrong", "choose")
    reply = said(chat, "1", "answer")
    assert reply.learned and said(chat, "which opening hours", "answer").text == reply.text != "From 8 to 19."


def test_undo_forgets_the_last(chat: Chat) -> None:
    assert said(chat, "/undo", "told").text == "Nothing was taught."
    for question, answer in (("dogs", "Yes."), ("cats", "No.")):
        chat.say(question)
        chat.say(f"/teach {answer}")
    reply = said(chat, "/undo", "told")
    assert reply.learned and reply.text == "Forgotten: cats" and chat.taught == [Entry("dogs", "Yes.")]
    assert said(chat, "cats", "unknown") and said(chat, "dogs", "answer").text == "Yes."


def test_the_last_way_out_of_two_answers_is_kept() -> None:
    chat = Chat(words, [Entry("a", "A"), Entry("b", "B")], close=0.5)
    chat.say("a")
    assert "one answer to all questions" in said(chat, "/teach B", "told").text
    assert chat.say("a").text == "A" and chat.taught == []


def test_why_and_help_and_what_is_no_command(chat: Chat) -> None:
    for line in ("/why", "/teach x", "/wrong"):
        assert said(chat, line, "told").text == "Ask a question first."
    chat.say("opening hours")
    assert "opening hours please (likeness 0.22)" in said(chat, "/why", "told").text
    chat.say("xyz")
    assert "too unlike all that I know" in said(chat, "/why", "told").text
    assert "/teach ANSWER" in said(chat, "/help", "told").text and "/teach ANSWER" in said(chat, "/teach", "told").text
    assert "no /foo" in said(chat, "/foo", "told").text and "/help" in said(chat, "  ", "told").text


def test_an_faq_that_contradicts_itself_or_has_one_answer() -> None:
    with pytest.raises(QuickstudyError, match="the question 'Parking\\?' has two answers"):
        Chat(words, [*FAQ, Entry("Parking?", "On the roof.")], 0.5)
    with pytest.raises(QuickstudyError, match="one answer is no choice"):
        Chat(words, FAQ[:2], 0.5)


def test_with_sentences_for_real(tiny: Settings, tmp_path: Path) -> None:
    from quickstudy.cli.chat import _read_faq
    from quickstudy.cli.sources import How

    torch.manual_seed(0)
    shape = tiny.model.model_copy(update={"dimension": 384, "learner": "protonet"})  # the sentence vectors as they are
    save_model(MetaModel(tiny.inputs, shape, {"text"}), tmp_path, {})
    qs = Quickstudy.load(tmp_path)
    entries = _read_faq(Path(__file__).parents[3] / "docs/faq.csv", How({"content": "question", "label": "answer"}))
    assert len({entry.answer for entry in entries}) == 30
    chat = Chat(lambda texts, labels: qs.adapt(texts, labels, modality="text"), entries, close=0.5)
    for question, part in (
        ("my front wheel has a puncture", "Call 0100 555 012"),
        ("my bicycle was stolen last night", "Tell the police first"),
        ("what time do you close in the evening", "from 8 to 19"),
        ("is there a reduced price for people at university", "20% less"),
    ):
        reply = chat.say(question)
        said = [reply.text, *(chat._answers[topic] for topic in chat._choices)]
        assert any(part in text for text in said), (question, reply)
    chat.say("Can my dog come along?")
    chat.say("/teach Yes, we have baskets for small dogs.")
    assert "baskets" in chat.say("is it possible to take a dog with me").text
