"""A figure in a notebook: the picture, small enough to be committed, and its caption."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from softlens.figures.base import Ground, draw

WIDTH, COLOURS = 760, 160
"""Pixels across, and colours kept: drawings need few, and a page of them stays small."""


@dataclass(frozen=True)
class Shown:
    """A drawn figure. It shows itself in a notebook."""

    picture: Path
    """Its PNG."""
    caption: str
    """Markdown."""

    @property
    def small(self) -> bytes:
        """The PNG for a page: at most `WIDTH` pixels across."""
        with Image.open(self.picture) as opened:
            picture = opened.convert("RGB")
        share = min(1.0, WIDTH / picture.width)
        size = (round(picture.width * share), round(picture.height * share))
        buffer = io.BytesIO()
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        # The octree keeps colours of small marks, which the default cut gives up.
        few = picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
        few.save(buffer, format="png", optimize=True)
        return buffer.getvalue()

    def __repr__(self) -> str:
        return self.caption

    def _ipython_display_(self) -> None:
        from IPython.display import Image as Picture
        from IPython.display import Markdown, display

        display(Picture(data=self.small), Markdown(self.caption))


def show(ground: Ground, name: str) -> Shown:
    """A figure of `ground`, drawn if it is not there yet.

    Raises:
        LeftOutError: it cannot be drawn on this ground.
        SoftlensError: there is no such figure.
    """
    paths = [ground.folder / f"{name}{suffix}" for suffix in (".png", ".md")]
    if not all(path.is_file() for path in paths):
        draw(ground, name)
    return Shown(paths[0], paths[1].read_text(encoding="utf-8").strip())
