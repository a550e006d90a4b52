"""A model in memory, and where its next version comes from."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from quickstudy.adaptation.adapted import check_learner
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, parts_of, weights_digest


@dataclass(frozen=True)
class Loaded:
    """A version's part for a kind of task, which answers, and beside it those for other kinds."""

    version: str
    """what the registry calls it; of a folder, the start of the digest"""
    kind: str
    digest: str
    """sha256 of the part's weights"""
    model: MetaModel = field(repr=False)
    parts: Mapping[str, "Loaded"] = field(repr=False, compare=False)
    """all of the version's, by kind, this one too"""

    def of(self, kind: str) -> "Loaded":
        """Return the version's part for a kind.

        Raises:
            QuickstudyError: it has none.
        """
        if kind not in self.parts:
            what = f"version {self.version} of the model has no part for {kind} (it has {', '.join(self.parts)})"
            raise QuickstudyError(what, fix="Serve a version that was trained on such data")
        return self.parts[kind]


@dataclass(frozen=True)
class Source:
    """A name that stands for a model: an alias, which may move, or a version or folder, which does not."""

    look: Callable[[], str | None]
    """which version the name stands for now; None for none"""
    fetch: Callable[[str], Path]
    """that version's folder, its files checked"""

    def load(self, version: str, precision: str) -> Loaded:
        """A model, ready to answer.

        Args:
            precision: "float32", "bfloat16" or "auto", of the frozen text encoder; a vector of bfloat16 has a cosine to
                that of float32 above 0.999.

        Raises:
            QuickstudyError: there is no such model or it cannot serve.
        """
        # OpenMP keeps workers for each thread that has computed, as long as it lives. Where they are more than the
        # cores, those of the thread that answers fall asleep between any two operations, and a text takes half as
        # long again. So the thread that loads a model does nothing else.
        with ThreadPoolExecutor(1) as loader:
            return loader.submit(self._load, version, precision).result()

    def _load(self, version: str, precision: str) -> Loaded:
        folder = self.fetch(version)
        parts: dict[str, Loaded] = {}
        for kind in parts_of(folder) or {"classify": folder}:  # where there is none, reading it says so
            model = load_model(folder, kind)
            check_learner(model, folder)
            if "text" in model.modalities:
                encoder = model.encoder("text")
                encoder.front_dtype = fast_dtype() if precision == "auto" else getattr(torch, precision)
                encoder.prepare(["warm"])  # it is read with the first text, which takes a second
            parts[kind] = Loaded(version, kind, weights_digest(folder, kind), model, parts)
        return parts.get("classify") or next(iter(parts.values()))


def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it, in about two thirds of the time; elsewhere it would take longer."""
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def folder_source(folder: Path) -> Source:
    """A model that lies in a folder."""
    return Source(lambda: weights_digest(folder, next(iter(parts_of(folder)), "classify"))[:12], lambda _: folder)
