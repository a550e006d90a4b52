import json

from rich.console import Console

from quickstudy.cli.display import Display


def lines(console: Console) -> list[str]:
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_one_line_for_each_step_and_for_what_a_stage_has_to_say() -> None:
    console = Console(width=100, record=True, force_terminal=False)
    with Display(console) as display:
        for event in (
            {"event": "start", "step": "data"},
            {"event": "done", "step": "data", "outcome": "up to date", "seconds": 1.0, "note": "version 0123"},
            {"event": "start", "step": "tasks"},
            {"event": "progress", "step": "tasks", "what": "check words", "done": 1200, "total": 6400},
            {"event": "progress", "step": "tasks", "what": "rows", "done": 1200, "total": 0},
            {"event": "text", "step": "tasks", "text": "5 datasets, 3 findings recorded"},
            {"event": "summary", "step": "tasks", "text": "all checked"},
            {"event": "stopped", "step": "tasks", "text": "stopped; the next run goes on"},
            {"event": "done", "step": "tasks", "outcome": "ran", "seconds": 12.3},
            {"event": "start", "step": "meta_train@classify"},
            {"event": "done", "step": "meta_train@classify", "outcome": "restored", "seconds": 0.2},
        ):
            assert display.take(json.dumps(event) + "\n")
        assert not display.take("something that a library printed\n")
        assert not display.take("12\n")
        assert not display.take('{"event": "user logged in", "level": "info"}\n')  # JSON that is none of ours
    assert lines(console) == [
        "✓ data                  up to date  version 0123",
        "    check words: 1,200 of 6,400",
        "    rows: 1,200",
        "    5 datasets, 3 findings recorded",
        "    all checked",
        "✓ tasks                       12 s",
        "✓ meta_train@classify     restored",
    ]
    assert display.seconds == {"tasks": 12.3}  # what was skipped took no time worth telling
    assert display.last["data"]["note"] == "version 0123"


def test_on_a_terminal_counts_move_the_bar_and_leave_no_lines() -> None:
    console = Console(width=100, record=True, force_terminal=True)
    with Display(console) as display:
        display.take('{"event": "start", "step": "meta_train"}')
        display.take('{"event": "progress", "step": "meta_train", "what": "meta-train", "done": 1200, "total": 6400}')
        (task,) = display._live.tasks
        assert (task.completed, task.total) == (1200, 6400)
        assert task.fields["line"] == "meta-train: 1,200 of 6,400"
        display.take('{"event": "done", "step": "meta_train", "outcome": "ran", "seconds": 3.0}')
        assert display._live.tasks == []


def test_the_users_mistake_is_kept_for_the_end() -> None:
    console = Console(width=100, record=True, force_terminal=False)
    with Display(console) as display:
        display.take('{"event": "start", "step": "tasks"}')
        display.take('{"event": "error", "step": "tasks", "text": "data/words: one class only"}')
        assert display.error is None
        display.take('{"event": "error", "text": "data/words: one class only"}')
    assert display.error == "data/words: one class only" and display.crash is None
    assert lines(console) == []
