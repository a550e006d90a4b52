from pathlib import Path

from quickstudy.runs.durations import FILE, read_durations, record_duration


def test_the_last_duration_of_each_step_is_remembered(tmp_path: Path) -> None:
    record_duration(tmp_path, "tasks", 3.0)
    record_duration(tmp_path, "card", 1.5)
    record_duration(tmp_path, "tasks", 4.25)
    assert read_durations(tmp_path) == {"tasks": 4.25, "card": 1.5}


def test_a_damaged_file_is_no_durations(tmp_path: Path) -> None:
    record_duration(tmp_path, "tasks", 3.0)
    for content in ("{", "[1]", '{"tasks": "soon"}'):
        (tmp_path / FILE).write_text(content)
        assert read_durations(tmp_path) == {}
