"""The card in Markdown."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import pandas as pd

from quickstudy.card import costs, weak
from quickstudy.card.calibration import Calibration, calibrations
from quickstudy.card.failures import Episode
from quickstudy.card.verdict import champion_summary, gates_word
from quickstudy.report.evidence import LONG, SHORT, Evidence
from quickstudy.report.words import counts, duration, examples, interval, listed, percent, plain, rows, sentence, shots
from quickstudy.stats.intervals import OURS

NOVELTIES = {
    "classes": ("New classes", "The kind of data is known from meta-training; these classes are not."),
    "dataset": ("New dataset", "Nothing of the dataset was in meta-training."),
    "domain": ("New domain", "The classes are new, and so is where the examples come from: a voice, say, never heard."),
}
"""By what is new to the model: the heading and what it means."""

PLURALS = {"image": "images", "audio": "recordings", "text": "texts"}
SIDES = (("train", "meta-train"), ("validation", "meta-validation"), ("test", "meta-test"))


def markdown(evidence: Evidence, shown: Sequence[Sequence[Episode]], figures: set[str]) -> str:
    """The whole card.

    Args:
        shown: of each modality the episodes to look at.
        figures: the file names of those that there are.
    """
    figure = {name: f"![{alt}]({name})" if name in figures else "" for name, alt in FIGURES.items()}
    known = calibrations(evidence)
    parts = [
        "# Quickstudy: model card",
        *_glance(evidence),
        *gates_word(evidence),
        "## What it is for, and what not",
        *_purpose(evidence, known),
        "## Results on tasks it has never seen",
        *_novelties(evidence),
        figure["accuracy.png"],
        "### All methods",
        *_table(evidence),
        "### Training each task separately",
        *costs.separately(evidence, _pretrained(evidence)),
        figure["adapt.png"],
        *(["## Calibration", *weak.calibration(known), figure["calibration.png"]] if known else []),
        *_failures(evidence, shown),
        "## Limits",
        *_limits(evidence),
        "## What it learned from",
        *_data(evidence),
        "## How it works and was trained",
        *_training(evidence),
        figure["training.png"],
        "### What it cost",
        *costs.cost(evidence),
        "## How to use it",
        USE,
        "## How to build it again",
        *_rebuild(evidence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


FIGURES = {
    "accuracy.png": "Accuracy with bands of 95% by the number of examples a class, for each suite of tasks, beside the "
    "best baselines",
    "adapt.png": "Time to learn a task and accuracy then: Quickstudy beside training from scratch",
    "calibration.png": "How often answers are right by the probability they were given with, for each modality",
    "training.png": "Loss and meta-validation accuracy during meta-training",
}


def _failures(evidence: Evidence, shown: Sequence[Sequence[Episode]]) -> list[str]:
    if evidence.ours.empty:
        return []
    parts = ["## Where it fails", *weak.failures(evidence)]
    for episodes in shown:
        modality = episodes[0].modality
        parts.append(weak.told_episodes(episodes))
        if modality == "text":
            parts += [part for episode in episodes for part in weak.texts(episode)]
        else:
            parts.append(f"![{weak.alternative(episodes)}](episodes_{modality}.png)")
    return parts


def _glance(evidence: Evidence) -> list[str]:
    ours = evidence.table[evidence.table["method"] == OURS]
    means = ours.groupby("shot")["accuracy"].mean()
    head = [f"{examples(int(shot))} a class" for shot in means.index]
    body = [f"{percent(value)} %" for value in means]
    took = ours["adapt_ms"].median()
    if not math.isnan(took):
        head.append("to learn a task")
        body.append(duration(took))
    suites = len(evidence.suites)
    ways = sorted(int(way) for way in ours["way"].unique())
    way = f"{ways[0]}" if len(ways) == 1 else f"{ways[0]} to {ways[-1]}"
    reads = listed(PLURALS.get(name, plain(name)) for name in evidence.model["modalities"])
    return [
        "One model that learns a classification task it has never seen from a handful of labelled examples, instead of "
        f"one model trained for each task. It reads {reads}.",
        rows(head, [body]),
        f"Mean accuracy over {suites} suite{'s' if suites > 1 else ''} of tasks with {way} classes each, none of which "
        "it was trained on"
        + ("." if math.isnan(took) else "; median time, from the examples' files to a task that answers."),
        _below(evidence),
    ]


def _purpose(evidence: Evidence, known: Sequence[Calibration]) -> list[str]:
    inputs, modalities = evidence.model["inputs"], evidence.model["modalities"]
    encoders = evidence.model["model"]["encoders"]
    sees = []
    if "image" in modalities and ":" in encoders["image"]:
        sees.append(f"Images are seen in the size and the colours that {plain(encoders['image'])} was trained on.")
    elif "image" in modalities:
        image = inputs["image"]
        tone = "grey" if image["channels"] == 1 else "colour"
        sees.append(f"Images become {image['size']} × {image['size']} pixels of {tone}: finer detail is lost.")
    if "audio" in modalities:
        audio = inputs["audio"]
        at = f"at {audio['sample_rate']:,} Hz"
        if ":" in encoders["audio"]:
            at = f"at the rate that {plain(encoders['audio'])} was trained on"
        sees.append(
            f"Recordings are heard {at} and for {audio['seconds']:g} s, around their "
            "loudest part: what is higher or longer is lost."
        )
    if "text" in modalities:
        sees.append(_reads(inputs["text"], encoders["text"]))
    others = [name for name in ("image", "audio", "text") if name not in modalities]
    not_for = [
        "decisions about people, or any use where a wrong answer does harm, without a test on your own examples first",
        "noticing that an example belongs to no class: it always answers one of the classes that it was taught",
        "probabilities taken at their word"
        + (": see how far from it they are under Calibration" if known else ": their calibration was not measured"),
        "finding, counting or outlining things, or writing text: it classifies whole examples",
    ]
    if others:
        not_for.append(f"{listed(others, 'or')}: it was not trained on any")
    return [
        "Many small classification problems with few labelled examples each: which team a ticket belongs to, which "
        "defect a photo shows, which word was said. Each becomes a task that the same model learns in a moment. "
        "Where a problem has thousands of labelled examples, a model of its own will be better.",
        "It is **not** for:",
        "\n".join(f"- {item}" for item in not_for),
        "What it sees of an example:" if sees else "",
        "\n".join(f"- {item}" for item in sees),
    ]


def _reads(text: Mapping[str, Any], encoder: str) -> str:
    """What it sees of a text."""
    if encoder.startswith("minilm"):
        sees, by = f"{text['max_tokens']} tokens", f"{plain(text['encoder'])}, which knows English best"
    elif ":" in encoder:
        sees, by = f"{text['max_tokens']} tokens", f"{plain(encoder)}, frozen"
    elif encoder.startswith("bytes-"):
        sees, by = f"{text['max_bytes']} bytes", "a network that knows the texts below alone"
    else:
        sees = f"{text['max_tokens']} words"
        by = "a network that knows the texts below alone: a word that is in none of them tells it little"
    return f"Texts are read up to {sees} by {by}."


def _below(evidence: Evidence) -> str:
    if not evidence.baselines:
        return "No baseline was run beside it, so that nothing is said here about how it compares."
    places = [
        f"{plain(row['suite'])} with {examples(row['shot'])} "
        f"({percent(row['ours'])}; {_long(row['method'])}: {interval(row['theirs'], row['ci95'])})"
        for row in evidence.below
    ]
    return f"**Below a baseline's interval at: {'; '.join(places) or 'nowhere'}.**"


def _long(method: str) -> str:
    return LONG.get(method, plain(method))


def _novelties(evidence: Evidence) -> list[str]:
    parts = []
    novelties = evidence.table.drop_duplicates("suite").set_index("suite")["novelty"]
    for novelty in [*NOVELTIES, *(name for name in novelties.unique() if name not in NOVELTIES)]:
        suites = [suite for suite in evidence.suites if novelties[suite] == novelty]
        if suites:
            title, meaning = NOVELTIES.get(novelty, (f"New {plain(novelty)}", ""))
            parts += [f"### {title}", f"{meaning} {_in_words(evidence, suites)}".strip(), _compared(evidence, suites)]
    if evidence.baselines:
        parts.append(
            "In each cell our accuracy in %, in brackets that of the best baseline on the same episodes. ▲: above the "
            "95% intervals of all these baselines; ▼: below the interval of a baseline; neither: level."
        )
    parts.append("Bands in the figure are 95% intervals over episodes, often narrower than the line they belong to.")
    return parts


def _in_words(evidence: Evidence, suites: Sequence[str]) -> str:
    """How often it is right in these suites, and how often the best baseline is."""
    ours: dict[int, list[float]] = {}
    best: dict[int, list[float]] = {}
    for suite in suites:
        for row in evidence.rows(suite, OURS).itertuples():
            ours.setdefault(row.shot, []).append(row.accuracy)
            if len(rivals := _rivals(evidence, suite, row)):
                best.setdefault(row.shot, []).append(rivals["accuracy"].max())
    right = listed(f"{percent(mean(ours[shot]))} % with {shot}" for shot in sorted(ours))
    text = f"It is right in {right} example{'s' if [*ours] != [1] else ''} a class"
    if best:
        text += f", the best baseline in {listed(f'{percent(mean(best[shot]))} %' for shot in sorted(best))}"
    return text + (f" (means of {len(suites)} suites)." if len(suites) > 1 else ".")


def _compared(evidence: Evidence, suites: Sequence[str]) -> str:
    """A row a suite, a column a number of shots, in each cell ours beside the best baseline and who is ahead."""
    below = {(row["suite"], row["shot"]) for row in evidence.below}
    body = []
    for suite in suites:
        ours = evidence.rows(suite, OURS)
        cells = dict.fromkeys(evidence.shots, "–")
        for row in ours.itertuples():
            rivals = _rivals(evidence, suite, row)
            cell = percent(row.accuracy)
            if len(rivals):
                cell += f" ({percent(rivals['accuracy'].max())})"
            if (suite, row.shot) in below:
                cell += " ▼"
            elif len(rivals) and (row.accuracy > rivals["accuracy"] + rivals["ci95"].fillna(0.0)).all():
                cell += " ▲"
            cells[int(row.shot)] = cell
        body.append([plain(suite), *cells.values(), ours["modality"].iloc[0], int(ours["way"].iloc[0])])
    head = ["suite", *(shots(shot) for shot in evidence.shots), "modality", "classes"]
    return rows(head, body, align="l" + "r" * len(evidence.shots) + "lr")


def _rivals(evidence: Evidence, suite: str, ours: Any) -> pd.DataFrame:
    """The baselines that answered as many episodes as we did."""
    table = evidence.table
    same = (table["suite"] == suite) & (table["shot"] == ours.shot) & (table["episodes"] == ours.episodes)
    return table[same & (table["method"] != OURS)]


def _table(evidence: Evidence) -> list[str]:
    below = {(row["suite"], row["shot"]) for row in evidence.below}
    champion = champion_summary(evidence)
    body = []
    for (suite, shot), part in evidence.table.groupby(["suite", "shot"], sort=False):
        by_method = part.set_index("method")
        best = by_method["accuracy"].max()
        count = by_method.loc[OURS, "episodes"]
        cells = [plain(suite), shot]
        for method in evidence.methods:
            if method not in by_method.index:
                cells.append("–")
                continue
            row = by_method.loc[method]
            cell = interval(row["accuracy"], row["ci95"])
            if row["accuracy"] == best:
                cell = f"**{cell}**"
            if row["episodes"] != count:
                cell += f" (of {row['episodes']})"
            if method == OURS and (suite, shot) in below:
                cell += " ▼"
            cells.append(cell)
            if method == OURS and champion:
                cells.append(_champion(champion.get((suite, shot)), count))
        body.append([*cells, count])
    head = ["suite", "shots", *(SHORT.get(name, plain(name)) for name in evidence.methods), "episodes"]
    if champion and evidence.gate is not None:
        head.insert(3, f"champion, {plain(evidence.gate.name)}")
    said = "Accuracy in %, mean ± half the 95% interval over the episodes of a row; the highest of a row is bold."
    if any(f"(of {count})" in str(cell) for cells in body for cell in cells for count in evidence.table["episodes"]):
        said += " (of *k*): over the first *k* episodes alone."
    if below:
        said += " ▼: Quickstudy is below a baseline's interval."
    meanings = [f"*{SHORT[name]}*: {LONG[name]}" for name in evidence.baselines if name in SHORT and name != "scratch"]
    if meanings:
        said += (
            f" {'; '.join(meanings)}. *Encoder before meta-training* is the untrained network"
            + (", for text the pretrained sentence encoder" if _pretrained(evidence) else "")
            + "; *raw features* are pixels, log-mel frames, or TF-IDF of words and word pairs."
        )
    return [rows(head, body, align="l" + "r" * (len(head) - 1)), said]


def _champion(found: tuple[float, float, int] | None, count: int) -> str:
    if found is None:
        return "–"
    accuracy, half, episodes = found
    return interval(accuracy, half) + (f" (of {episodes})" if episodes != count else "")


def _pretrained(evidence: Evidence) -> bool:
    """Whether texts are read by an encoder that began pretrained."""
    encoder = evidence.model["model"]["encoders"]["text"]
    return "text" in evidence.model["modalities"] and (encoder.startswith("minilm") or ":" in encoder)


def _limits(evidence: Evidence) -> list[str]:
    table = evidence.table
    ours = table[table["method"] == OURS]
    worst = ours.loc[ours["accuracy"].idxmin()]
    items = [
        f"It is weakest at {plain(worst['suite'])} with {examples(int(worst['shot']))} a class: "
        f"{percent(worst['accuracy'])} %, where guessing gives {percent(1 / worst['way'])} %.",
        "The intervals say how well the mean over such episodes is known. The episodes of a suite share the same "
        "few groups, listed below; other groups may be easier or harder by more than the interval.",
        "A task with more classes than the tasks here is harder, one with fewer is easier.",
    ]
    fewer = table[(table["method"] == "scratch")]["episodes"]
    if len(fewer):
        items.append(
            f"Training from scratch was tried on only {counts(fewer)} episodes a row, because it is slow: its "
            "intervals are wide."
        )
    if evidence.baselines:
        items.append("The baselines have their default settings; nobody tuned them.")
    if not ours["adapt_ms"].isna().all():
        items.append("Times are of the machine that judged the model, one task at a time, and vary with its load.")
    return ["\n".join(f"- {item}" for item in items)]


def _data(evidence: Evidence) -> list[str]:
    body, notes = [], []
    for name, count in evidence.counts.items():
        info = evidence.datasets[name].info
        groups = [count.get(f"groups_{side}", 0) for side, _ in SIDES]
        body.append(
            [
                plain(name),
                info.modality,
                f"{count['examples']:,}",
                f"{count['classes']:,}",
                plain(info.group),
                *groups,
                plain(info.licence),
            ]
        )
        note = [f"**{plain(name)}**:", sentence(info.description), f"Source: {sentence(info.source)}"]
        held_out = evidence.splits.get(name, {}).get("domains_held_out", [])
        if held_out:
            many = f"{len(held_out)} {info.domain}s were" if len(held_out) > 1 else f"1 {info.domain} was"
            note.append(f"Of its {plain(info.domain)}s, {plain(many)} kept out of meta-training.")
        if info.citation:
            note.append(f"Cite: {sentence(info.citation)}")
        notes.append("- " + " ".join(part for part in note if part))
    head = ["dataset", "modality", "examples", "classes", "a group is", *(f"{side}" for _, side in SIDES), "licence"]
    findings = [
        f"- {plain(found['dataset'])}: {sentence(found['what'])} {sentence(found['fix'])}"
        for found in evidence.findings
    ]
    return [
        "A group never crosses a meta-split: the model learned from the meta-train groups, meta-validation groups drew "
        "the curves below, and the results above are of meta-test groups alone. Numbers of groups:",
        rows(head, body, align="llrrlrrrl"),
        "\n".join(notes),
        "The checks of the data found:" if findings else "The checks of the data found nothing to report.",
        "\n".join(findings),
    ]


def _training(evidence: Evidence) -> list[str]:
    training, shape = evidence.training, evidence.model["model"]
    chosen = [f"{plain(shape['encoders'][name])} for {name}" for name in evidence.model["modalities"]]
    text = (
        f"`model(data, task) = f(data) + α · g(task)`: an encoder *f* for each modality maps examples to "
        f"{shape['dimension']} numbers; the learner *g* reads a task's examples and corrects the classes' prototypes; "
        f"α says how far and is learned from 0. The encoders are {listed(chosen)}."
    )
    if "alpha" in training:
        text += f" Here α = {training['alpha']:g}."
    facts = []
    if "steps" in training:
        facts.append(f"{training['steps']:,} meta-batches of mixed modalities, ways and shots")
    if "seconds" in training:
        facts.append(f"{duration(1000 * training['seconds'])} of training")
    if "parameters" in training:
        facts.append(f"{training['parameters']:,} trained parameters")
    return [text, f"{'; '.join(facts)}." if facts else ""]


USE = """On the command line, with `CLASS/file` folders, a .zip, or a table with the columns text and label:

```sh
quickstudy adapt SUPPORT --task NAME --shots 5   # learns the task, keeps it in a small file
quickstudy predict --task NAME QUERIES --json answers.json
quickstudy evaluate SOURCE --way 5 --shot 5      # judges it on your own data
```

In Python, support set and queries in one call (images and recordings as base64 of their files):

```python
import mlflow, pandas as pd

mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
model = mlflow.pyfunc.load_model("models:/quickstudy@champion")
task = {
    "modality": "text",
    "support": [
        {"input": "The council approved the new budget on Tuesday.", "label": "news"},
        {"input": "I finally tried that sourdough recipe, what a mess.", "label": "blog"},
    ],
    "queries": ["The minister will resign at the end of the month."],
}
print(model.predict(pd.DataFrame([task]))["labels"][0])
```"""


def _rebuild(evidence: Evidence) -> list[str]:
    gate, seed = evidence.gate, evidence.lineage.get("seed")
    number = gate.number if gate is not None and gate.number else "VERSION"
    known = gate.lineage if gate is not None else {}
    facts = [
        f"- {what}: `{value}`"
        for what, value in (
            ("git commit", known.get("git_commit")),
            ("data (DVC)", known.get("data_hash")),
            ("seed", seed),
            ("weights (SHA-256)", evidence.weights),
        )
        if value is not None
    ]
    return [
        f"```sh\nquickstudy reproduce models:/quickstudy/{number}   # builds it anew, apart, and compares\n```",
        "It answers IDENTICAL, EQUIVALENT or DIFFERENT, with what differs. By hand, at the commit that the version was "
        "made of (its run in MLflow holds `lineage.json`, `params.yaml`, `dvc.lock` and what was not committed):",
        "```sh\nmake run    # or, in a prepared environment, dvc repro\nsha256sum build/model/model.safetensors\n```",
        "What it was built from, and the weights that both give on the same type of machine:",
        "\n".join(facts),
    ]
