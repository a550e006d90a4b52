"""minilm-layers: the frozen sentence encoder all-MiniLM-L6-v2, read at several depths, and a trainable projection."""

from quickstudy.encoders.text_minilm import OWN, MiniLM


class LayeredMiniLM(MiniLM):
    """Lower layers hold the words, the last one the meaning that sentences are compared by (Jawahar et al. 2019, What
    does BERT learn about the structure of language?)."""

    # Chosen on the training and validation parts of CLINC150: benchmarks/open_set.py.
    layers = (0, 0, 1, 1, 1, 1, 3)

    @property
    def front(self) -> str:
        return f"minilm-layers/{self.layers}/{self.inputs.encoder}/{self.inputs.max_tokens}/{OWN}"
