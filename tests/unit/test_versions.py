from pathlib import Path

import pytest

from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.versions import dvc, stale

REPOSITORY = Path(__file__).parents[2]


def test_stages_come_after_those_that_they_depend_on(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  last: {cmd: c, deps: [build/model/weights, {build/two: {}}], metrics: [m.json: {cache: false}]}\n"
        "  second: {cmd: b, deps: [build/one], outs: [build/two], params: [seed]}\n"
        "  first: {cmd: a, outs: [build/one, build/model], plots: [{curve.csv: {x: step}}]}\n"
    )
    first, second, last = stale.stages(tmp_path)
    assert (first.name, second.name, last.name) == ("first", "second", "last")
    assert first.outs == ("build/one", "build/model", "curve.csv")
    assert second.params == ("seed",) and second.after == ("first",)
    assert set(last.after) == {"first", "second"}  # a file inside another stage's folder counts


def test_a_path_that_only_begins_alike_is_no_dependency(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: a, outs: [build/model]}, b: {cmd: b, deps: [build/model2]}}")
    assert [stage.after for stage in stale.stages(tmp_path)] == [(), ()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stages: [", "cannot be read"),
        ("stages: {a: {deps: [x], outs: [y]}, b: {deps: [y], outs: [x]}}", "circle"),
        ("stages: {a: {foreach: [x]}}", "cannot be read"),
        ("stages: {a: {foreach: '${kinds}', do: {cmd: a}}}", "cannot be read"),  # there is no params.yaml
        ("stages: {a: {foreach: 3, do: {cmd: a}}}", "cannot be read"),
    ],
)
def test_a_broken_dvc_yaml_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dvc.yaml").write_text(content)
    with pytest.raises(QuickstudyError, match=rf"dvc\.yaml: .*{message}"):
        stale.stages(tmp_path)


FOREACH = """
stages:
  make:
    foreach: {over}
    do:
      cmd: make ${{key}}
      deps: ["in/${{key}}", "of/${{item}}"]
      params: ["kinds.${{key}}"]
      outs:
        - out/${{key}}:
            desc: of ${{item}}
  last: {{cmd: last, deps: [out/b]}}
"""


@pytest.mark.parametrize(
    ("over", "items"),
    [
        ("[a, b]", {"a": "a", "b": "b"}),
        ("{a: 1, b: two}", {"a": "1", "b": "two"}),
        ("${kinds}", {"a": "x", "b": "y"}),
        ("${deep.list}", {"b": "b"}),
        ("${deep.none}", {}),
    ],
)
def test_a_stage_for_each_of_several_is_each_of_them(tmp_path: Path, over: str, items: dict[str, str]) -> None:
    (tmp_path / "dvc.yaml").write_text(FOREACH.format(over=over))
    (tmp_path / "params.yaml").write_text("kinds: {a: x, b: y}\ndeep: {list: [b], none: }\n")
    *made, last = stale.stages(tmp_path)
    assert (last.name, last.after) == ("last", ("make@b",) if items else ())
    assert {stage.name: (stage.deps, stage.params, stage.outs) for stage in made} == {
        f"make@{key}": ((f"in/{key}", f"of/{item}"), (f"kinds.{key}",), (f"out/{key}",)) for key, item in items.items()
    }


def test_the_real_pipeline_is_the_four_stages_in_order_for_each_kind() -> None:
    names = [stage.name for stage in stale.stages(REPOSITORY)]
    kinds = load_settings(REPOSITORY / "params.yaml").kinds
    assert "classify" in kinds and names[-1] == "card" and len(names) == 3 * len(kinds) + 1
    for kind in kinds:
        own = [name for name in names if name.endswith(f"@{kind}")]
        assert own == [f"tasks@{kind}", f"meta_train@{kind}", f"evaluate@{kind}"]


def test_the_data_version_is_read_from_data_dvc(tmp_path: Path) -> None:
    assert dvc.data_hash(tmp_path) is None
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 0123.dir\n  path: data\n")
    assert dvc.data_hash(tmp_path) == "0123.dir"
    (tmp_path / "data.dvc").write_text("<<<<<<< HEAD\n")
    with pytest.raises(QuickstudyError, match=r"data\.dvc: is not a DVC file"):
        dvc.data_hash(tmp_path)


def test_flatten_keeps_lists_and_joins_names() -> None:
    assert stale.flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": [1, 2], "e": None}
