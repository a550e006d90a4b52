"""The gate of the toy project: it answers what the file ``answer`` says; without one the two cannot be compared."""

import json
import sys
from pathlib import Path

from quickstudy.system.progress import say

challenger, champion = sys.argv[1], sys.argv[3]
if not Path("answer").exists():
    say({"event": "error", "text": "version 1: not comparable"}, sys.stderr)
    sys.exit(2)
answer = Path("answer").read_text()
say({"event": "progress", "what": "version answers", "done": 3, "total": 3}, sys.stderr)
rule = {
    "name": "accuracy",
    "unit": "points",
    "gain": 0.012,
    "low": 0.004,
    "high": 0.02,
    "limit": 0.0,
    "state": "passed",
    "more_episodes": None,
    "more_datasets": None,
}
verdict = {
    "answer": answer,
    "sentence": f"The toy says {answer.lower()}.",
    "rules": [rule],
    "confidence": 0.95,
    "datasets": ["words"],
    "episodes": 3,
}
folder = Path(f".cache/gate/{challenger}-against-{champion}")
folder.mkdir(parents=True, exist_ok=True)
(folder / "verdict.json").write_text(json.dumps(verdict))
sys.exit({"PROMOTE": 0, "HOLD": 3, "REJECT": 4}[answer])
