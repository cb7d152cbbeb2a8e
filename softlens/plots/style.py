"""The one style sheet, the look of what is compared, and how a figure is saved."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softlens import files
from softlens.display import show
from softlens.errors import SoftlensError

# Okabe and Ito's colours, told apart by the colour-blind; shapes say the same without colour.
COLOURS = {
    "soft prompt": "#0072B2",
    "nearest tokens": "#D55E00",
    "tokens as found": "#CC79A7",
    "re-tokenised text": "#E69F00",
    "best readable": "#009E73",
    "random prompt": "#7F7F7F",
    "empty prompt": "#000000",
}
MARKERS = dict(zip(COLOURS, "osvDP^X", strict=True))
METHODS = ("soft", "pez", "rlprompt", "fluentprompt", "gcg", "sample", "race", "beam", "tandem")
# The ninth of these colours, a yellow, is hardly seen on white.
_TEN = sns.color_palette("colorblind", 10)
_METHOD_LOOK = dict(zip(METHODS, zip([*_TEN[:8], _TEN[9]], "osDP^Xv<*", strict=True), strict=True))


def look(name: str) -> tuple[Any, str]:
    """Colour and marker of something scored or of a method; of other names, grey circles."""
    if name in COLOURS:
        return COLOURS[name], MARKERS[name]
    return _METHOD_LOOK.get(name.split(" ")[0], ("0.4", "o"))


_RC: Any = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
}


def show_plot(text: str) -> str:
    r"""`text` as matplotlib can draw it: made visible by `show`, and inert.

    `$` would start mathematics, and a letter that the font lacks would be drawn as a box with a
    warning: the one is escaped, the other written as ``\u{...}``.
    """
    font = font_manager.get_font(font_manager.findfont(_RC["font.family"]))
    # matplotlib lays letters out one by one, so that isolates have nothing to do here.
    shown = show(text).strip("\u2068\u2069").replace("$", r"\$")
    return "".join(c if font.get_char_index(ord(c)) else f"\\u{{{ord(c):x}}}" for c in shown)


@contextmanager
def style() -> Iterator[None]:
    """The look of every softlens figure, for the block: fonts embedded, colour-blind safe."""
    interactive = mpl.is_interactive()
    try:
        with sns.axes_style("ticks"), mpl.rc_context(_RC):
            yield
            # A notebook's backend comes alive with the first figure and turns this on; put back
            # to what it was before, it would keep every later figure from being shown.
            interactive = mpl.is_interactive()
    finally:
        mpl.interactive(interactive)


def as_panels(ax: Any, count: int) -> np.ndarray:
    """The Axes of a picture of `count` panels, in a row.

    Args:
        ax: one Axes, or a list or an array of them, of any shape.
        count: how many are drawn into.

    Raises:
        SoftlensError: something else, or another number of them.
    """
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if other := [one for one in axes if not isinstance(one, Axes)]:
        raise SoftlensError(
            f"Got ax with a {type(other[0]).__name__} in it, wanted {count} matplotlib Axes, as "
            f"plt.subplots(1, {count}) makes them."
        )
    if len(axes) != count:
        raise SoftlensError(
            f"Got {len(axes)} Axes, wanted {count}, one for each panel: make them with "
            f"plt.subplots(1, {count}), or leave ax out for a new figure."
        )
    return axes


def save(figure: Figure, path: Path, frame: pd.DataFrame | None = None) -> list[Path]:
    """Write `figure` as PDF and PNG and `frame`, what is drawn, as CSV, each whole or not at all.

    Args:
        figure: what to write.
        path: where, without a suffix.
        frame: the numbers in the picture.
    """
    written = []
    # Without a date the same picture is the same bytes.
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with mpl.rc_context(_RC):
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        # Not with_suffix, which would cut "lambda_0.3" short.
        written.append(path.with_name(path.name + suffix))
        files.write_atomic(written[-1], buffer.getvalue())
    if frame is not None:
        written.append(path.with_name(path.name + ".csv"))
        files.write_atomic(written[-1], frame.to_csv(index=False).encode())
    return written
