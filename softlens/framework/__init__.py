"""The framework: is the reading faithful, is it scrutable, and does the prompt deserve one?"""

from softlens.framework.criterion import Criterion, Verdict
from softlens.framework.faithfulness import Faithfulness, faithfulness, faithfulness_all
from softlens.framework.gauges import GAUGES, gauge, gauges
from softlens.framework.page import load_report
from softlens.framework.planted import Planted, distil, wayward
from softlens.framework.report import Report, report
from softlens.framework.scrutability import Scrutability, scrutability

__all__ = [
    "GAUGES",
    "Criterion",
    "Faithfulness",
    "Planted",
    "Report",
    "Scrutability",
    "Verdict",
    "distil",
    "faithfulness",
    "faithfulness_all",
    "gauge",
    "gauges",
    "load_report",
    "report",
    "scrutability",
    "wayward",
]
