"""One kind's part of the card: how it is shown, and the evidence."""

from dataclasses import dataclass

import pandas as pd

from quickstudy.config import Inputs, Model
from quickstudy.data.dataset import MODALITIES, Modality
from quickstudy.encoders import Encoder, encoder_class
from quickstudy.report.evidence import QUICKSTUDY, GateWord, KindEvidence, Method
from quickstudy.report.shown import Shown
from quickstudy.report.words import Markdown, counted, duration, listed
from quickstudy.stats.intervals import OURS

RAW = {"image": "pixels", "audio": "log-mel frames", "text": "TF-IDF of words and word pairs"}
"""What the raw features of a modality are."""


@dataclass(frozen=True)
class Absent:
    """A kind that the model has no part for."""

    shown: Shown
    why: str


@dataclass(frozen=True)
class Part:
    shown: Shown
    evidence: KindEvidence
    gate: GateWord | None

    @property
    def champion(self) -> pd.DataFrame:
        """The champion's rows; empty where there was none, or nobody asked the gate."""
        return pd.DataFrame() if self.gate is None else self.gate.answered(self.evidence.kind)

    @property
    def methods(self) -> list[str]:
        """That were judged, ours first; those that the kind does not know last."""
        found = self.evidence.baselines
        return [
            OURS,
            *(name for name in self.shown.methods if name in found),
            *(name for name in found if name not in self.shown.methods),
        ]

    @property
    def timed(self) -> bool:
        """Whether it was measured how long learning a task takes."""
        return not self.evidence.own["adapt_ms"].isna().all()

    @property
    def unread(self) -> list[str]:
        """Modalities that the model was not trained on."""
        return [name for name in MODALITIES if name not in self.evidence.modalities]

    @property
    def encoders(self) -> dict[Modality, type[Encoder]]:
        """By modality."""
        inputs, shape = self.settings
        return {name: encoder_class(name, inputs, shape) for name in MODALITIES if name in self.evidence.modalities}

    @property
    def settings(self) -> tuple[Inputs, Model]:
        """Of the model, as it was made."""
        model = self.evidence.model
        return Inputs.model_validate(model["inputs"]), Model.model_validate(model["model"])

    @property
    def sees(self) -> list[str]:
        """What it sees of an example of each modality, in a sentence each."""
        inputs, shape = self.settings
        names = dict(shape.encoders)
        return [encoder.sees(name, inputs, names[name]) for name, encoder in self.encoders.items()]

    @property
    def named_encoders(self) -> Markdown:
        """By which names the settings choose them, in words."""
        names = dict(self.settings[1].encoders)
        return listed(f"{names[modality]} for {modality}" for modality in self.evidence.modalities)

    @property
    def trained(self) -> str:
        """How much the model was trained, in words."""
        training, facts = self.evidence.training, []
        if "steps" in training:
            facts.append(f"{training['steps']:,} meta-batches of mixed {self.shown.mixed}")
        if "seconds" in training:
            facts.append(f"{duration(1000 * training['seconds'])} of training")
        if "parameters" in training:
            facts.append(f"{training['parameters']:,} trained parameters")
        return f"{'; '.join(facts)}." if facts else ""

    @property
    def raw(self) -> Markdown:
        """What the baselines are given that see raw features."""
        return listed((RAW[name] for name in MODALITIES if name in self.evidence.modalities), "or")

    @property
    def reads_pretrained(self) -> bool:
        """Whether texts are read by an encoder that began pretrained."""
        return "text" in self.encoders and self.encoders["text"].pretrained

    def called(self, method: str) -> str:
        """Return a method's name for the head of a column."""
        return QUICKSTUDY if method == OURS else self._known(method).short

    def described(self, method: str) -> str:
        """Return a method's name for a sentence."""
        return QUICKSTUDY if method == OURS else self._known(method).long

    def families(self) -> dict[str, list[str]]:
        """Return the baselines that were judged, by family, in the order of the kind."""
        found: dict[str, list[str]] = {}
        for name, method in self.shown.methods.items():
            if name in self.evidence.baselines:
                found.setdefault(method.family, []).append(name)
        return found

    def examples(self, shot: int) -> str:
        """Return "5 examples a class", as the kind counts them."""
        return f"{counted(shot, 'example')} {self.shown.per}".strip()

    def shots(self, number: int) -> str:
        """Return "5 shots", as the kind calls them in short."""
        return counted(number, self.shown.unit)

    def _known(self, method: str) -> Method:
        return self.shown.methods.get(method, Method(method, method, ""))
