"""Files of every sort, made on the spot, and a project folder to import them into."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from quickstudy.data.dataset import Dataset, DatasetInfo, make_table

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def png() -> Callable[..., bytes]:
    """A picture of random pixels as file bytes; the same number gives the same picture."""

    def make(number: int = 0, mode: str = "L", size: tuple[int, int] = (12, 10), form: str = "PNG", **options) -> bytes:
        channels = len(Image.new(mode, (1, 1)).getbands())
        shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        image = Image.fromarray(pixels if mode != "1" else np.where(pixels > 127, 255, 0).astype(np.uint8)).convert(
            mode
        )
        buffer = io.BytesIO()
        image.save(buffer, format=form, **options)
        return buffer.getvalue()

    return make


@pytest.fixture
def wav() -> Callable[..., bytes]:
    """A recording of a few random tones as file bytes; the same number gives the same recording."""

    def make(
        number: int = 0, seconds: float = 0.2, rate: int = 8000, channels: int = 1, form: str = "WAV", **options
    ) -> bytes:
        random = np.random.default_rng(number)
        time = np.arange(int(seconds * rate)) / rate
        tones = sum(np.sin(2 * np.pi * (f * time + f * time**2)) for f in random.uniform(150, 1500, 4)) / 5 + 0 * time
        buffer = io.BytesIO()
        soundfile.write(buffer, np.repeat(tones[:, None], channels, axis=1), rate, format=form, **options)
        return buffer.getvalue()

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, bytes | str]], Path]:
    """Write files into a folder called ``source`` and give its path."""

    def make(files: dict[str, bytes | str], folder: str = "source") -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return make


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Pack files into ``source.zip``, under whatever names, and give its path."""

    def make(files: dict[str, bytes], name: str = "source.zip", method: int = zipfile.ZIP_DEFLATED) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, content in files.items():
                archive.writestr(zipfile.ZipInfo(member), content, method)
        return path

    return make


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder with the real settings, as the current folder."""
    root = tmp_path / "workspace"
    root.mkdir()
    shutil.copy(REPOSITORY / "params.yaml", root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def toys(wav) -> Callable[..., Dataset]:
    """A dataset whose classes can be told apart; the classes are spread over the groups, the examples over the
    domains. ``each`` is the number of examples of every class, or a list with the number of each."""

    def make(
        modality: str = "text", classes: int = 6, each: int | list[int] = 8, groups: int = 3, domains: int = 0, **info
    ) -> Dataset:
        counts = [each] * classes if isinstance(each, int) else each
        labels = [f"class {c:02}" for c, count in enumerate(counts) for _ in range(count)]
        places = [(c, i) for c, count in enumerate(counts) for i in range(count)]
        if modality == "text":
            examples: list = [f"{['red', 'blue', 'old', 'new'][c % 4]} thing {c} number {i}" for c, i in places]
        elif modality == "image":
            examples = [_toy_picture(c, i) for c, i in places]
        else:
            examples = [wav(100 * c + i, seconds=0.3, rate=4000) for c, i in places]
        table = make_table(
            modality,  # type: ignore[arg-type]
            examples,
            labels,
            [f"group {c % groups}" for c, _ in places],
            [f"domain {i % domains}" for _, i in places] if domains else None,
        )
        about = {"name": "toys", "modality": modality, "domain": "voice" if domains else None} | info
        return Dataset(DatasetInfo.model_validate(about), table)

    return make


def _toy_picture(c: int, i: int) -> bytes:
    """A random pattern for each class; a little noise for each example."""
    pattern = np.random.default_rng(c).integers(0, 2, (4, 4)).repeat(5, 0).repeat(5, 1)
    noise = np.random.default_rng(1000 * c + i + 1).normal(0, 25, pattern.shape)
    buffer = io.BytesIO()
    Image.fromarray((pattern * 160 + 40 + noise).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
