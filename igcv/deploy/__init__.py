"""Deployment: fold, export, quantize, compare, and measure latency.

Folding is here; what needs an engine is imported from its module: igcv.deploy.export, .exported, .latency.
"""

from igcv.deploy.fold import Plan, fold
from igcv.deploy.folded import FoldedNetwork
from igcv.deploy.forms import FORMS

__all__ = ["FORMS", "FoldedNetwork", "Plan", "fold"]
