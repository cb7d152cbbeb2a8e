"""What panels are made of: rows, buttons, and what all panels of an inspector have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import ipywidgets as w

if TYPE_CHECKING:
    from softlens.widgets.inspector import Inspector


def row(*children: w.Widget) -> w.Box:
    """Children beside each other, wrapped where there is little room."""
    return w.Box(children, layout=w.Layout(flex_flow="row wrap", align_items="center"))


def button(text: str, tooltip: str, act: Any) -> w.Button:
    """A button with words on it; `act` is called without arguments."""
    made = w.Button(description=text, tooltip=tooltip, layout=w.Layout(width="auto"))
    made.on_click(lambda _: act())
    return made


class Panel(ABC):
    """One tab: its name, what it shows, and how it is filled."""

    name = ""

    def __init__(self, owner: Inspector) -> None:
        self.owner = owner
        self.bench = owner.bench
        self.widget: w.Widget = w.VBox(self.build())

    @abstractmethod
    def build(self) -> list[w.Widget]:
        """The widgets of this panel."""

    @abstractmethod
    def fill(self) -> None:
        """Show the present state."""

    def asked(self, act: Any) -> Any:
        """`act` as a callback whose errors appear in the inspector."""

        def call(*args: Any) -> None:
            with self.owner.safely():
                act(*args)

        return call
