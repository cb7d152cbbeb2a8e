"""A figure in a notebook: the picture, small enough to be committed, and its caption."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from softlens.figures.base import FIGURES, Ground, LeftOutError, draw

WIDTH, COLOURS = 760, 160
"""Pixels across, and colours kept: drawings need few, and a page of them stays small."""


@dataclass(frozen=True)
class Shown:
    """A drawn figure. It shows itself in a notebook."""

    picture: Path | None
    """Its PNG; None where it is left out."""
    caption: str
    """Markdown; where it is left out, why."""

    @property
    def small(self) -> bytes:
        """The PNG for a page: at most `WIDTH` pixels across.

        Raises:
            LeftOutError: there is none.
        """
        if self.picture is None:
            raise LeftOutError(self.caption)
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

        if self.picture is not None:
            display(Picture(data=self.small))
        display(Markdown(self.caption))


def show(ground: Ground, name: str) -> Shown:
    """A figure of `ground`, drawn if it is not there yet; where it cannot be drawn, why.

    Raises:
        SoftlensError: there is no such figure.
    """
    paths = [ground.folder / f"{name}{suffix}" for suffix in (".png", ".md")]
    if not all(path.is_file() for path in paths):
        try:
            draw(ground, name)
        except LeftOutError as reason:
            figure = FIGURES[name]
            why = f"**Figure {figure.number}: {figure.title}.** Left out: {reason}."
            return Shown(None, why)
    return Shown(paths[0], paths[1].read_text(encoding="utf-8").strip())
