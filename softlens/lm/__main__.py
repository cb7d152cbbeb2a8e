"""``python -m softlens.lm NAME``: load an LM and say what it is, as ``make real`` does."""

import logging
import sys

from softlens.lm import load_lm

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger(__name__).info("%r", load_lm(sys.argv[1] if sys.argv[1:] else None))
