"""digits: handwritten digits of 43 people, as scikit-learn ships them. Image, judged on and never trained on."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_digits

from quickstudy.data.dataset import DatasetInfo, make_table
from quickstudy.starter.work import Progress, silent

SIZE = 28


def build(progress: Progress = silent) -> tuple[DatasetInfo, pa.Table]:
    """The 1,797 pictures, enlarged from 8×8 with a margin, light ink on a dark ground."""
    digits = load_digits()
    images = [_png(picture) for picture in digits.images]
    labels = [str(target) for target in digits.target]
    progress(len(images), len(images))
    info = DatasetInfo(
        name="digits",
        modality="image",
        description="1,797 handwritten digits (the test half of the UCI set), 8×8 grey values, enlarged to 28×28.",
        licence="CC BY 4.0",
        source="sklearn.datasets.load_digits",
        citation="E. Alpaydin, C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning "
        "Repository. https://doi.org/10.24432/C50P49",
        group="class",
        meta_split="test",
    )
    return info, make_table("image", images, labels, labels)


def _png(picture: np.ndarray) -> bytes:
    """The file of a picture [8, 8] of ink 0..16, three times enlarged and two pixels from the edge."""
    grey = Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8))
    page = Image.new("L", (SIZE, SIZE))
    page.paste(grey.resize((24, 24), Image.Resampling.BICUBIC), (2, 2))
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()
