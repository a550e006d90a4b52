from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from quickstudy.cli.summary import duration, score_tables, step_times

TABLE = """kind,metric,suite,modality,novelty,way,shot,method,episodes,score,ci95,adapt_ms
classify,accuracy,digits,image,dataset,10,1,quickstudy,600,0.71234,0.00512,2.0
classify,accuracy,digits,image,dataset,10,1,logreg_raw,600,0.52,0.01,4.0
classify,accuracy,digits,image,dataset,10,1,centroid_encoder,600,0.60,0.01,
classify,accuracy,digits,image,dataset,10,1,scratch,5,0.80,0.2,900.0
classify,accuracy,digits,image,dataset,10,5,quickstudy,600,0.80,0.01,2.0
classify,accuracy,digits,image,dataset,10,5,logreg_raw,600,0.90,0.01,2.0
classify,accuracy,words@domain,audio,domain,5,1,quickstudy,600,0.95,0.01,2.0
"""


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    (tmp_path / "classify").mkdir()
    (tmp_path / "classify/table.csv").write_text(TABLE)
    return tmp_path


def printed(table: Table) -> list[list[str]]:
    console = Console(width=100, record=True)
    console.print(table)
    return [line.split() for line in console.export_text().splitlines()]


def test_each_cell_is_ours_beside_the_best_baseline(judged: Path) -> None:
    (table,) = score_tables(judged)
    title, header, *rows = printed(table)
    assert title[:2] == ["classify:", "accuracy"] and header[-4:] == ["1", "shot", "5", "shots"]
    assert rows == [
        ["dataset"],
        ["digits", "10", "71.2±0.5", "(60.0)", "80.0±1.0", "(90.0)"],
        ["domain"],
        ["words@domain", "5", "95.0±1.0", "–"],
    ]


def test_colours_say_which_side_of_the_baseline_we_are(judged: Path) -> None:
    (table,) = score_tables(judged)
    one_shot, five_shots = ([getattr(cell, "style", "") for cell in table.columns[i].cells] for i in (2, 3))
    assert one_shot == ["", "green", "", ""] and five_shots == ["", "red", "", ""]


def test_before_an_evaluation_there_is_no_table(tmp_path: Path) -> None:
    assert score_tables(tmp_path) == []


def test_each_kind_that_was_judged_has_a_table_by_its_own_score(judged: Path) -> None:
    for kind, text in (
        ("tag", TABLE.replace("classify,accuracy", "tag,micro F1").replace("0.71234", "0.41234")),
        ("none", "suite,shot,score,ci95\n"),  # of a kind without a dataset
    ):
        (judged / kind).mkdir()
        (judged / kind / "table.csv").write_text(text)
    one, other = (printed(table) for table in score_tables(judged))
    assert (one[0][:2], other[0][:3]) == (["classify:", "accuracy"], ["tag:", "micro", "F1"])
    assert (one[3][2], other[3][2]) == ("71.2±0.5", "41.2±0.5")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (1.24, "1.2 s"), (12.3, "12 s"), (59.6, "1 min 00 s"), (754, "12 min 34 s"), (11100, "3 h 05 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_times_of_a_run_in_one_line() -> None:
    assert (
        step_times({"tasks": 3.0, "meta_train": 60.2}, 80)
        == "tasks 3.0 s · meta_train 1 min 00 s · all in all 1 min 20 s"
    )
