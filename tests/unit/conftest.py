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
