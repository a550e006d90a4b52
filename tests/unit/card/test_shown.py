"""Every kind that is judged is shown, with all that it is judged beside."""

import pytest

from quickstudy.kinds.scores import SCORES
from quickstudy.kinds.shown import SHOWN


@pytest.mark.parametrize("kind", SCORES)
def test_a_kind_is_shown_with_its_score_and_its_baselines(kind: str) -> None:
    shown, scoring = SHOWN[kind], SCORES[kind]
    assert shown.score == scoring.NAME
    judged = {f"{name}_{seen}" for name in scoring.BASELINES for seen in ("raw", "encoder")} | {"scratch"}
    assert judged <= set(shown.methods)
    assert {"classes", "dataset", "domain"} == set(shown.novelties)
