"""Screenshots by structure: pixels where the chart is as large as it was, coarse means where another font has moved things.

What an expected picture holds is coloured in 32 steps per channel, which keeps files small and is half of what is tolerated.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]

SHOTS: Final = Path(__file__).resolve().parent / "shots"
STEP: Final = 8
TOLERANCE: Final = 16
SHARE: Final = 0.001
COARSE: Final = (96, 60)
"""Cells that a picture of another layout is averaged into."""
COARSE_TOLERANCE: Final = 24
COARSE_SHARE: Final = 0.02
_GREY: Final = (128, 128, 128)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""


def pixels(png: bytes) -> Pixels:
    """RGB uint8[height, width, 3] of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@dataclass(frozen=True)
class Shot:
    """A picture whose texts are masked. `layout`: what other fonts may move; pixels are compared where it is the same."""

    png: bytes
    masks: list[Box]
    layout: Any

    def masked(self) -> Image.Image:
        """The picture with flat boxes in the place of texts."""
        image = Image.open(io.BytesIO(self.png)).convert("RGB")
        draw = ImageDraw.Draw(image)
        for left, top, right, bottom in self.masks:
            draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=_GREY)
        return image


def check(shot: Shot, name: str, folder: Path, *, update: bool) -> None:
    """Compare with `shots/NAME.png`; on a difference both and their difference stay in `folder`. `update`: write it anew."""
    expected, layout = SHOTS / f"{name}.png", SHOTS / f"{name}.json"
    image = shot.masked()
    if update:
        SHOTS.mkdir(exist_ok=True)
        stepped = np.asarray(image) // STEP * STEP + STEP // 2
        Image.fromarray(stepped.astype(np.uint8)).save(expected, optimize=True)
        layout.write_text(json.dumps(shot.layout) + "\n", encoding="utf-8")
        return
    assert expected.is_file(), f"there is no expected {name}: run with --update-screenshots and look at it"
    wanted = Image.open(expected).convert("RGB")
    if json.loads(layout.read_text(encoding="utf-8")) == shot.layout and wanted.size == image.size:
        differs, share = np.abs(_of(image) - _of(wanted)).max(axis=2) > TOLERANCE, SHARE
    else:
        differs, share = np.abs(_of(_coarse(image)) - _of(_coarse(wanted))).max(axis=2) > COARSE_TOLERANCE, COARSE_SHARE
    if differs.mean() <= share:
        return
    image.save(folder / f"{name}-actual.png")
    wanted.save(folder / f"{name}-expected.png")
    Image.fromarray((differs * 255).astype(np.uint8)).save(folder / f"{name}-difference.png")
    raise AssertionError(f"{name}: {differs.mean():.2%} of the pixels differ (at most {share:.2%}); see {folder}")


def _of(image: Image.Image) -> npt.NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


def _coarse(image: Image.Image) -> Image.Image:
    return image.resize(COARSE, Image.Resampling.BOX)
