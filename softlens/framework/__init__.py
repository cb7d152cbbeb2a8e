"""The framework: is the reading faithful, is it scrutable, and does the prompt deserve one?"""

from softlens.framework.faithfulness import Faithfulness, faithfulness, faithfulness_all
from softlens.framework.planted import Planted, distil, wayward
from softlens.framework.scrutability import GAUGES, Scrutability, gauge, gauges, scrutability

__all__ = [
    "GAUGES",
    "Faithfulness",
    "Planted",
    "Scrutability",
    "distil",
    "faithfulness",
    "faithfulness_all",
    "gauge",
    "gauges",
    "scrutability",
    "wayward",
]
