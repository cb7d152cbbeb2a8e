"""What all widgets here share: where errors appear, the static view beside them, and their end."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ipywidgets as w
from IPython.display import HTML, DisplayHandle, display

from softlens.errors import SoftlensError
from softlens.widgets import views
from softlens.widgets.elements import Live

log = logging.getLogger(__name__)


class Shell(ABC):
    """Controls for where there is a kernel, and a static view of the same for where there is none.

    Both are outputs of the cell: a page shows the controls once a kernel has answered it, and the
    static view, which every change brings up to date, as long as none has.

    Attributes:
        widget: the ipywidgets box with the controls.
        error: where errors of callbacks appear.
        within: what has this one inside it, and shows its static view, too; or None.
    """

    def __init__(self) -> None:
        self.error = w.HTML()
        self.error.add_class("softlens-errors")
        self.live = Live()
        self.live.name = f"softlens-{self.live.model_id[:8]}"
        self.widget = w.VBox()
        self.widget.add_class("softlens").add_class(f"{self.live.name}-live")
        self.within: Shell | None = None
        self._handle: DisplayHandle | None = None

    def show(self, parts: Sequence[w.Widget]) -> None:
        """Make `parts` the controls, errors under the first of them."""
        self.widget.children = (parts[0], self.error, *parts[1:], self.live)

    @contextmanager
    def safely(self) -> Iterator[None]:
        """Errors of a callback appear in the widget, where they are read."""
        try:
            yield
        except SoftlensError as reason:
            self.error.value = views.error(str(reason))
        except Exception as reason:
            log.exception("in a callback of a widget")
            self.error.value = views.error(f"{type(reason).__name__}: {reason}")
        else:
            self.error.value = ""

    @abstractmethod
    def page(self) -> str:
        """The static view, as HTML."""

    def static(self) -> HTML:
        """What is seen as HTML that needs no kernel, no script and no network."""
        return HTML(self.page())

    def keep(self) -> None:
        """Bring the static view in the notebook's outputs up to date."""
        if self._handle is not None:
            self._handle.update(self.static())
        if self.within is not None:
            self.within.keep()

    def _ipython_display_(self) -> None:
        bundle = self.widget._repr_mimebundle_()
        # What is seen above the static view where a page does not know widgets.
        bundle["text/plain"] = f"{type(self).__name__}: its last state follows."
        display(bundle, raw=True)
        self._handle = DisplayHandle(f"{self.live.name}-{id(self)}")
        self._handle.display(self.static())

    def close(self) -> None:
        """Take the controls off the page, and free what they hold; the static view stays."""
        for widget in _inside(self.widget):
            widget.close()
        self._handle, self.within = None, None


def _inside(widget: w.Widget) -> Iterator[w.Widget]:
    for child in getattr(widget, "children", ()):
        yield from _inside(child)
    yield widget
