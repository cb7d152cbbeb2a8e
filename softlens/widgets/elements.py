"""The few elements that ipywidgets has not: rows of token buttons, clickable points, and a pulse.

Each is an anywidget: its script travels with the widget, so that nothing is fetched from anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

log = logging.getLogger(__name__)

_ASSETS = Path(__file__).parent / "assets"


def _asset(name: str) -> str:
    # Given a path, anywidget watches the file, and keeps every widget alive for as long.
    return (_ASSETS / name).read_text(encoding="utf-8")


class _Pressable(anywidget.AnyWidget):
    """Something of which a numbered part can be pressed."""

    def __init__(self, pressed: Callable[[Any], None] = lambda key: None, **known: Any) -> None:
        super().__init__(**known)
        self._pressed = pressed
        self.on_msg(self._heard)

    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if "pressed" in content:
            self._pressed(content["pressed"])

    def close(self) -> None:
        """Take it off the page, and let go of what it called."""
        self._pressed = lambda key: None
        super().close()


class Boxes(_Pressable):
    """Tokens as buttons. Items are ``key, text, value, state, colour, label``, ready to be shown.

    A press says the key of an item, not its place: others may stand there when it is heard.
    """

    _esm = _asset("boxes.js")
    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    label = traitlets.Unicode("tokens").tag(sync=True)
    selects = traitlets.Bool(False).tag(sync=True)

    def press(self, place: int) -> None:
        """Do what pressing the item at `place` does."""
        self._pressed(self.items[place]["key"])


class Points(_Pressable):
    """A picture whose marks with ``data-point`` can be hovered, pressed and reached by keys."""

    _esm = _asset("points.js")
    svg = traitlets.Unicode("").tag(sync=True)
    hint = traitlets.Unicode("").tag(sync=True)

    def press(self, index: int) -> None:
        """Do what pressing point `index` does."""
        self._pressed(index)


class Live(anywidget.AnyWidget):
    """The pulse: where a kernel answers, controls are shown, elsewhere their static view."""

    _esm = _asset("live.js")
    _css = _asset("widgets.css")
    name = traitlets.Unicode("").tag(sync=True)

    def __init__(self, **known: Any) -> None:
        super().__init__(**known)
        self.on_msg(self._heard)

    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("there"):
            self.send({"here": True})
