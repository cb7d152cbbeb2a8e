"""Widgets: prompts and sweeps to be looked at and changed in the notebook.

Inside: `draft` (a prompt under edit), `sample` and `testset` (the texts it is tried on), `replay`
(a training), `workbench` (the state of an inspection, without any widget) and `shades` (what
colours it), `positions`, `views` and `static` (what is seen, as HTML), `elements` (token buttons
and points), `panel`, `panels`, `inspector` and `sweep` (the widgets over all that, in a `shell`),
`runs` and `scatter` (a sweep's table, and its points).
"""

from softlens.widgets.inspector import Inspector
from softlens.widgets.opening import inspect
from softlens.widgets.sweep import SweepInspector, inspect_sweep

__all__ = ["Inspector", "SweepInspector", "inspect", "inspect_sweep"]
