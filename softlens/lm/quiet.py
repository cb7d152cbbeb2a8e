"""transformers without its bars and advice."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loading without transformers' progress bars and advice; both are put back afterwards."""
    logging_ = transformers.utils.logging
    level, bars = logging_.get_verbosity(), logging_.is_progress_bar_enabled()
    set_bars: dict[bool, Callable[[], None]] = {
        True: logging_.enable_progress_bar,
        False: logging_.disable_progress_bar,
    }
    logging_.set_verbosity_error()
    set_bars[False]()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging_.set_verbosity(level)
        set_bars[bars]()
