"""The page, as a person uses it, in a real Chromium."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from quickstudy.config import Chat
from quickstudy.kinds.classify import head
from quickstudy.kinds.openset import OpenSet
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.http.app import make_app
from tests.unit.serving.conftest import listening, opened

CHAT = Chat(close=0.4, false_alarm=0.05)


@pytest.fixture
def address(make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service on a port of its own, which knows nothing but what it was taught nearly word for word."""
    fit = head.fit

    def narrow(support: torch.Tensor, targets: torch.Tensor, false_alarm: float) -> OpenSet:
        opened = fit(support, targets, false_alarm)
        return dataclasses.replace(
            opened, threshold=float(head.unknown(opened, support).max()) + 0.01
        )  # vectors are kept rounded

    monkeypatch.setattr(head, "fit", narrow)
    engine = make_engine()
    with listening(make_app(engine.settings, engine, CHAT), engine.settings) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as page:
        yield page


def teach(page: Any, label: str, *texts: str) -> None:
    page.get_by_label("Class", exact=True).fill(label)
    page.get_by_label("Examples, one a line").fill("\n".join(texts))
    page.get_by_role("button", name="Teach", exact=True).click()
    page.get_by_text(f"Taught: {len(texts)} of {label}.").wait_for()


def ask(page: Any, text: str) -> str:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Ask", exact=True).click()
    settled(page)
    return str(page.locator(".verdict strong").inner_text())


def settled(page: Any) -> None:
    page.locator("body:not([aria-busy])").wait_for()


BILLING = ("My card was charged twice.", "Please send me the invoice again.")
DELIVERY = ("Where is my order now?", "The parcel has not arrived.")


def test_two_classes_are_taught_and_an_answer_is_seen(page: Any) -> None:
    teach(page, "billing", *BILLING)
    teach(page, "delivery", *DELIVERY)
    assert ask(page, BILLING[0]) == "billing"
    assert page.locator(".near li").first.inner_text().split("\n")[-1] == BILLING[0]
    assert re.fullmatch(r"\d of 4 right, each left out in turn", page.locator("#accuracy").inner_text())
    assert page.get_by_role("img", name="Accuracy by number of examples").is_visible()


def test_what_is_like_nothing_is_unknown_and_a_correction_teaches_it(page: Any) -> None:
    teach(page, "billing", *BILLING)
    teach(page, "delivery", *DELIVERY)
    strange = "ZZZZ 9999 ???? #### 0000"
    assert ask(page, strange) == "Unknown"
    assert "unknown above" in page.locator("#answer").inner_text()
    page.get_by_label("Not right?").fill("noise")
    page.get_by_role("button", name="Correct it").click()
    page.get_by_text("Corrected: this is noise.").wait_for()
    assert page.locator(".verdict strong").inner_text() == "noise"
    assert page.locator(".class", has_text="noise").get_by_text(strange).is_visible()


def test_an_example_is_taken_back(page: Any) -> None:
    teach(page, "billing", *BILLING)
    page.get_by_role("button", name="Take back an example of billing").first.click()
    settled(page)
    assert page.locator(".class li").count() == 1


def test_a_mistake_is_told_and_loses_nothing(page: Any) -> None:
    teach(page, "billing", *BILLING)
    page.get_by_label("Text", exact=True).fill("anything")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "two classes" in page.get_by_role("alert").inner_text()
    assert page.locator(".class li").count() == 2


def test_what_is_drawn_is_learned(page: Any) -> None:
    page.get_by_role("button", name="Images").click()
    for label, path in (("line", [(30, 30), (170, 170)]), ("corner", [(170, 30), (30, 30), (30, 170)])):
        draw(page, "#teach-canvas", path)
        page.get_by_label("Class", exact=True).fill(label)
        page.get_by_role("button", name="Teach", exact=True).click()
        page.get_by_text(f"Taught: 1 of {label}.").wait_for()
    draw(page, "#ask-canvas", [(170, 30), (30, 30), (30, 170)])
    page.get_by_role("button", name="Ask", exact=True).click()
    settled(page)
    assert page.locator(".bar").first.inner_text().startswith("corner")
    assert page.locator(".near img").count() == 2


def draw(page: Any, where: str, path: list[tuple[int, int]]) -> None:
    canvas = page.locator(where)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + path[0][0], box["y"] + path[0][1])
    page.mouse.down()
    for x, y in path[1:]:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=5)
    page.mouse.up()


def test_what_is_recorded_is_learned(page: Any) -> None:
    page.get_by_role("button", name="Sounds").click()
    record = page.locator("#teach-record")
    record.click()
    page.wait_for_timeout(700)  # of the beeps that Chromium makes in place of a microphone
    record.click()
    page.get_by_label("example of what was recorded").wait_for()
    page.get_by_label("Class", exact=True).fill("beep")
    page.get_by_role("button", name="Teach", exact=True).click()
    page.get_by_text("Taught: 1 of beep.").wait_for()


def test_all_of_it_by_keyboard(page: Any) -> None:
    def reach(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.locator(f"{selector}:focus").count():
                return
        pytest.fail(f"{selector} is not reached")

    for label, text in (("billing", BILLING[0]), ("delivery", DELIVERY[0])):
        reach("#label")
        page.keyboard.type(label)
        reach("#teach-text")
        page.keyboard.type(text)
        reach("#teach button.main")
        page.keyboard.press("Enter")
        page.get_by_text(f"Taught: 1 of {label}.").wait_for()
        page.locator("#label").fill("")
    reach("#ask-text")
    page.keyboard.type(BILLING[0])
    reach("#ask button.main")
    page.keyboard.press("Space")
    settled(page)
    assert page.locator(".verdict strong").inner_text() == "billing"
    reach("[data-new=text]")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    reach("#ask-canvas")
    for key in ("Space", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert "Pen down, 43% from the left" in page.locator("#panel-teach").inner_text()


def test_a_chat_answers_and_learns(page: Any) -> None:
    page.get_by_role("tab", name="Chat on an FAQ").click()
    line = page.get_by_label("Your question")
    line.fill("when are you open")
    line.press("Enter")
    page.get_by_role("log").get_by_text("Monday to Friday, nine to six.").wait_for()
    settled(page)
    line.fill("Do you sell gift cards?")
    line.press("Enter")
    settled(page)
    page.get_by_label("I know the answer").fill("Yes, at the till.")
    page.get_by_role("button", name="Teach it").click()
    settled(page)
    line.fill("do you sell gift cards")
    line.press("Enter")
    settled(page)
    assert page.get_by_role("log").locator("p").last.inner_text() == "Yes, at the till."


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("name", ["Happy or unhappy", "Three symbols"])
def test_a_ready_made_task_is_taught_at_one_click(page: Any, width: int, name: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_role("button", name=name).click()
    page.get_by_text("taught with 5 examples a class").wait_for()
    assert page.locator("svg circle").count() == 4  # from two shots on
    assert page.locator(".verdict").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
