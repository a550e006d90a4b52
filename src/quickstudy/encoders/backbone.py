"""A pretrained model as its files are found and run: in safetensors, as no pickle is loaded, and without a network."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import QuickstudyError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # whole, or in parts
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
READ = ("config.json", "preprocessor_config.json", "tokenizer.json", "modules.json")  # they make its vectors too
BESIDE = (  # and so do these, where a library reads them; a download may lack some
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "processor_config.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
    *("config_sentence_transformers.json", "sentence_bert_config.json"),
)


@dataclass(frozen=True)
class Backbone:
    """A pretrained model, frozen. Each library has a function that makes one of a folder."""

    folder: Path
    decode: Callable[[Any], Any]
    """An example as it is stored → what ``embed`` takes."""
    embed: Callable[[list[Any]], Tensor]
    """n decoded examples → the model's vectors [n, ...]."""
    example: Any
    """One that is decoded, to see what the model makes of it."""
    inputs: str = ""
    """Those of our settings that its vectors depend on."""
    running: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, examples: list[Any]) -> Tensor:
        """n decoded examples → float32 [n, W]"""
        with self.running, torch.inference_mode():  # one at a time: the network takes all cores itself
            return self.embed(examples).flatten(1).float()

    @cached_property
    def width(self) -> int:
        """W"""
        return self([self.example]).shape[1]

    @cached_property
    def digest(self) -> str:
        """Hexadecimal, of the files that make its vectors what they are, and of no other: a download may have fewer."""
        return self._digest(lambda path: path.suffix == ".safetensors" or path.name in READ)

    @cached_property
    def beside(self) -> str:
        """Hexadecimal, of further files that a library reads, as of how texts are cut into tokens."""
        return self._digest(lambda path: path.name in BESIDE)

    def _digest(self, counts: Callable[[Path], bool]) -> str:
        digest = blake2b(digest_size=16)
        for path in sorted([*self.folder.glob("*"), *self.folder.glob("[0-9]*/*")]):  # [0-9]*: sentence-transformers'
            if counts(path):
                digest.update(f"{path.relative_to(self.folder).as_posix()}/{path.stat().st_size}/".encode())
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()


def files(model: str) -> Path:
    """The folder of a model: the one that is named, or the one of the local Hugging Face cache.

    Args:
        model: a folder, told by its beginning, ``/``, ``./``, ``../`` or ``~/``; else a name of the Hugging Face hub,
            with a revision behind an ``@`` where it is not to be the newest.

    Raises:
        QuickstudyError: it is not there, or its weights are not there as safetensors.
    """
    if is_folder(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise QuickstudyError(f"there is no folder {folder}", fix="Its place is relative to the project's folder")
        require_safetensors(folder, "The library's `save_pretrained` writes them")
        return folder

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, _, revision = model.partition("@")
    get = f"Download it: `hf download {repository}" + (f" --revision {revision}`" if revision else "`")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        raise QuickstudyError("it is not on this machine, and nothing is downloaded unasked", fix=get) from None
    except HFValidationError:
        raise QuickstudyError(f"{repository!r} can be no name of the Hugging Face hub") from None
    require_safetensors(folder, get)
    return folder


def is_folder(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~/"))


def require_safetensors(folder: Path, get: str) -> None:
    """Refuse weights that are a pickle: reading one runs the code in it.

    Args:
        get: where there are no weights at all, what to do.
    """
    if any((folder / name).exists() for name in WEIGHTS):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise QuickstudyError(
            f"{folder / pickles[0]} is a pickle, and no pickle is loaded",
            fix=f"Take a revision of the model that has {WEIGHTS[0]}",
        )
    raise QuickstudyError(f"no {WEIGHTS[0]} in {folder}", fix=get)


def cause(error: BaseException, name: str) -> str:
    """What an error of a library comes from, in one line: transformers tells the place alone.

    Args:
        name: of the encoder.

    Raises:
        QuickstudyError: it comes from a torchvision that was built for another torch. All that imports it fails then,
            and transformers does where it is installed.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    if "torchvision::" in said:  # "operator torchvision::nms does not exist"
        raise QuickstudyError(
            f"torchvision is installed, and is not the one that belongs to torch {torch.__version__} ({said})",
            where=name,
            fix="For a torch without CUDA: `pip install --force-reinstall --no-deps torchvision==0.28.0 --index-url "
            "https://download.pytorch.org/whl/cpu`. Or remove torchvision: timm alone needs it",
        ) from None
    return said
