"""Deployment: fold, export, quantize, compare, and measure latency."""

from igcv.deploy.exporter import Exported, export
from igcv.deploy.folding.forms import FORMS
from igcv.deploy.folding.network import FoldedNetwork
from igcv.deploy.folding.plan import Plan
from igcv.deploy.inference import fold

__all__ = ["FORMS", "Exported", "FoldedNetwork", "Plan", "export", "fold"]
