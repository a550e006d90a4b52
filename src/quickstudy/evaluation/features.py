"""What a method without an encoder sees of the examples."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from quickstudy.data.dataset import Dataset


def raw_features(dataset: Dataset, arrays: np.ndarray, rows: np.ndarray):
    """What a classifier without an encoder sees: pixels, log-mel frames, or TF-IDF of words and word pairs.

    The vocabulary and the document frequencies come from all the rows given, queries included (without their labels):
    more than a single task would have, so the yardstick is not held back.

    Returns:
        float32 [len(rows), F], sparse for text.
    """
    if dataset.modality == "text":
        return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32).fit_transform(dataset.raw(rows))
    flat = arrays[rows].reshape(len(rows), -1).astype(np.float32)
    return flat / 255 if arrays.dtype == np.uint8 else flat
