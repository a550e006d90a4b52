"""How the card shows each kind of task."""

from quickstudy.kinds.classify.shown import words as classify
from quickstudy.report.shown import Shown

SHOWN: dict[str, Shown] = {"classify": classify.SHOWN}
