"""What a kind's model learned from: its datasets, and what the checks of them found."""

from quickstudy.card.part import Part
from quickstudy.kinds.targets import targets_of
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.words import Markdown, plain, rows, sentence

SIDES = (("train", "meta-train"), ("validation", "meta-validation"), ("test", "meta-test"))


def table(part: Part) -> Markdown:
    """Return a row a dataset: what there is of it, and its groups by meta-split."""
    evidence = part.evidence
    counted = list(dict.fromkeys(name for count in evidence.counts.values() for name in count))
    counted = [name for name in counted if not name.startswith("groups_")]  # examples, and what the kind counts
    body = []
    for name, count in evidence.counts.items():
        info = evidence.datasets[name].info
        numbers = [f"{count.get(what, 0):,}" for what in counted]
        groups = [count.get(f"groups_{side}", 0) for side, _ in SIDES]
        body.append([name, info.modality, *numbers, info.group, *groups, info.licence])
    called = {"classes": targets_of(evidence.kind).WORD}
    head = ["dataset", "modality", *(called.get(what, what) for what in counted), "a group is"]
    head += [*(side for _, side in SIDES), "licence"]
    return rows(head, body, align="ll" + "r" * len(counted) + "lrrrl")


def notes(part: Part) -> list[Markdown]:
    """Return what each dataset is, where it comes from and how to cite it."""
    return [_note(part.evidence, name) for name in part.evidence.counts]


def _note(evidence: KindEvidence, name: str) -> Markdown:
    info = evidence.datasets[name].info
    said = [f"**{plain(name)}**:", sentence(info.description), f"Source: {sentence(info.source)}"]
    held_out = evidence.splits.get(name, {}).get("domains_held_out", [])
    if held_out:
        many = f"{len(held_out)} {info.domain}s were" if len(held_out) > 1 else f"1 {info.domain} was"
        said.append(f"Of its {plain(info.domain)}s, {plain(many)} kept out of meta-training.")
    if info.citation:
        said.append(f"Cite: {sentence(info.citation)}")
    return Markdown(" ".join(part for part in said if part))


def findings(part: Part) -> list[Markdown]:
    """Return what the checks found."""
    return [
        Markdown(f"{plain(found['dataset'])}: {sentence(found['what'])} {sentence(found['fix'])}")
        for found in part.evidence.findings
    ]
