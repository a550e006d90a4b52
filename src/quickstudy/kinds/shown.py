"""How the card shows each kind of task. A kind's module is its row here; adding a kind adds one."""

from quickstudy.kinds.classify.shown import words as classify
from quickstudy.kinds.tag.shown import words as tag
from quickstudy.report.shown import Shown

SHOWN: dict[str, Shown] = {"classify": classify.SHOWN, "tag": tag.SHOWN}
