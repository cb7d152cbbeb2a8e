"""Readings: texts proposed as what a prompt says, by methods that list themselves.

One file a method. To add one, write a function that takes an `Asked` and returns a `Reading`, and
name it with `reader` (`softlens.readings.nearest` is the shortest); `sl.read`,
`sl.reading_methods()` and reports then know it.
"""

from softlens.readings import frame as _frame
from softlens.readings import matched as _matched
from softlens.readings import mixture as _mixture
from softlens.readings import nearest as _nearest
from softlens.readings import verbalize as _verbalize
from softlens.readings.base import Expert, Reading
from softlens.readings.registry import READERS, Asked, Reader, read, reader, reading_methods

__all__ = ["READERS", "Asked", "Expert", "Reader", "Reading", "read", "reader", "reading_methods"]
METHODS = (_nearest, _verbalize, _matched, _mixture, _frame)
"""The files that register themselves when this package is imported."""
for _method in METHODS:
    # Imports are sorted; tables show the plainest method first.
    _name = _method.__name__.rpartition(".")[2]
    READERS[_name] = READERS.pop(_name)
