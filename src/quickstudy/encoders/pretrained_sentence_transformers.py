"""sentence-transformers:NAME: sentence encoders (Reimers & Gurevych 2019, https://arxiv.org/abs/1908.10084)."""

import json

from torch import Tensor

from quickstudy.config import TextInput
from quickstudy.encoders.backbone import Backbone, files, require_safetensors
from quickstudy.errors import QuickstudyError


def sentence_transformers_model(model: str, inputs: TextInput) -> Backbone:
    """Texts, cut to ``max_tokens`` → the vectors that the model was trained to give, its own prompt before them."""
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        if error.name != "sentence_transformers":
            raise
        fix = "Install it: `pip install 'quickstudy[sentence-transformers]'`"
        raise QuickstudyError(f"no package {error.name} is installed", fix=fix) from None

    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = files(model)
    modules = folder / "modules.json"
    for module in json.loads(modules.read_text(encoding="utf-8")) if modules.exists() else []:
        part = folder / module["path"]
        if (part / "pytorch_model.bin").exists():  # the library takes it where there is nothing else
            require_safetensors(part, "")
    encoder = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True, "dtype": "float32"},
    )
    encoder.max_seq_length = min(inputs.max_tokens, encoder.max_seq_length or inputs.max_tokens)

    def embed(texts: list[str]) -> Tensor:
        return encoder.encode(texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False)

    return Backbone(folder, str, embed, "a text", f"{inputs.max_tokens} tokens")
