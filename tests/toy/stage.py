"""The four stages in miniature, for tests of what is around them: real files of the real names, no learning.

    python stage.py tasks|meta_train|evaluate [KIND]
    python stage.py card

A file data/bad stands for data that a stage refuses, data/bug for a bug in a stage. A file `slow` beside data/ makes
the training long; it then writes its process id into a file `started`. So does a file data/slow, which holds the
seconds that each of the three steps takes; what was done of them stays in .cache/checkpoints when it is killed. What it
tells, it tells as the real stages do.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import yaml

from quickstudy.system.progress import say

stage, kind = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "classify"
build = Path("build")
params = yaml.safe_load(Path("params.yaml").read_text())
folder = build / stage if stage == "card" else build / stage / kind
folder.mkdir(parents=True, exist_ok=True)
if stage == "tasks":
    if Path("data/bad").exists():
        say({"event": "error", "text": "data/bad: one class only. Add a second one"}, sys.stderr)
        sys.exit(2)
    assert not Path("data/bug").exists()
    content = b"".join(path.read_bytes() for path in sorted(Path("data").iterdir()))
    (folder / "tasks.json").write_text(json.dumps({"digest": hashlib.sha256(content).hexdigest()}))
if stage == "meta_train":
    digest = hashlib.sha256(
        (build / "tasks" / kind / "tasks.json").read_bytes() + str(params["seed"]).encode()
    ).digest()
    slow, checkpoint = Path("data/slow"), Path(".cache/checkpoints") / digest.hex()[:12]
    begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(begin, 3):
        say({"event": "progress", "what": "meta-train", "done": step + 1, "total": 3}, sys.stderr)
        if slow.exists():
            Path("started").write_text(f"{os.getpid()} {begin}")
            time.sleep(float(slow.read_text()))
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write_text(str(step + 1))
        if Path("slow").exists():
            Path("started").write_text(str(os.getpid()))
            time.sleep(60)
    model = build / "model" / kind
    model.mkdir(parents=True, exist_ok=True)
    (model / "model.safetensors").write_bytes(digest)
    (model / "config.yaml").write_text(f"dimension: {params['model']['dimension']}\n")
    (model / "lineage.json").write_text(json.dumps({"trained_on": {"toy": ["one"]}}))
    (folder / "metrics.json").write_text(json.dumps({"image": {"accuracy": 0.9}}))
    (folder / "curve.csv").write_text("step,modality,loss\n1,image,1.0\n2,image,0.5\n1,text,0.7\n")
if stage == "evaluate":
    count = params["episodes"]["count"]
    (folder / "metrics.json").write_text(json.dumps({"words@domain": {"5-shot": {"score": 0.95}}, "count": count}))
    (folder / "table.csv").write_text(
        "kind,metric,suite,modality,novelty,way,shot,method,episodes,score,ci95,adapt_ms\n"
        f"{kind},accuracy,digits,image,dataset,10,1,quickstudy,{count},0.71,0.01,2.0\n"
        f"{kind},accuracy,digits,image,dataset,10,1,logreg_raw,{count},0.52,0.01,4.0\n"
        f"{kind},accuracy,words@domain,audio,domain,5,5,quickstudy,{count},0.95,0.01,2.0\n"
        f"{kind},accuracy,words@domain,audio,domain,5,5,centroid_raw,{count},0.60,0.01,\n"
    )
if stage == "card":
    (folder / "card.md").write_text("# Model card\n")
