import json

from rich.console import Console

from quickstudy.cli.display import Display


def lines(console: Console) -> list[str]:
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_one_line_for_each_step_and_for_what_a_stage_has_to_say() -> None:
    console = Console(width=100, record=True, force_terminal=False)
    with Display(console) as display:
        for event in (
            {"step": "data", "state": "start"},
            {"step": "data", "state": "done", "outcome": "up to date", "seconds": 1.0, "note": "version 0123"},
            {"step": "tasks", "state": "start"},
            {"step": "tasks", "line": "check words: 1,200 of 6,400"},
            {"step": "tasks", "line": "5 datasets, 3 findings recorded"},
            {"step": "tasks", "state": "done", "outcome": "ran", "seconds": 12.3},
        ):
            assert display.take(json.dumps(event) + "\n")
        assert not display.take("something that a library printed\n")
        assert not display.take("12\n")
    assert lines(console) == [
        "✓ data          up to date  version 0123",
        "    check words: 1,200 of 6,400",
        "    5 datasets, 3 findings recorded",
        "✓ tasks               12 s",
    ]
    assert display.seconds == {"tasks": 12.3}  # what was skipped took no time worth telling
    assert display.last["data"]["note"] == "version 0123"


def test_on_a_terminal_counts_move_the_bar_and_leave_no_lines() -> None:
    console = Console(width=100, record=True, force_terminal=True)
    with Display(console) as display:
        display.take('{"step": "meta_train", "state": "start"}')
        display.take('{"step": "meta_train", "line": "meta-train: 1,200 of 6,400"}')
        (task,) = display._live.tasks
        assert (task.completed, task.total) == (1200, 6400)
        display.take('{"step": "meta_train", "state": "done", "outcome": "ran", "seconds": 3.0}')
        assert display._live.tasks == []


def test_the_users_mistake_is_kept_for_the_end() -> None:
    console = Console(width=100, record=True, force_terminal=False)
    with Display(console) as display:
        display.take('{"step": "tasks", "state": "start"}')
        display.take('{"step": "tasks", "line": "quickstudy: data/words: one class only"}')
        display.take('{"error": "data/words: one class only"}')
    assert display.error == "data/words: one class only" and display.crash is None
    assert lines(console) == []
