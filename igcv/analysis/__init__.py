"""What can be computed about a network without training it."""

from igcv.analysis.cost import Cost, model_cost, network_cost

__all__ = ["Cost", "model_cost", "network_cost"]
