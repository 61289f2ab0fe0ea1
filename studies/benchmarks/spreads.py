"""Text of medians with their range."""

from collections.abc import Sequence
from statistics import median, quantiles


def with_range(middle: float, low: float, high: float, digits: int = 2) -> str:
    """Return the text "median (min to max)"."""
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median of values with their range."""
    return with_range(median(values), min(values), max(values), digits)


def with_quartiles(values: Sequence[float], digits: int = 2) -> str:
    """Return the text "median (first to third quartile; min to max)" of at least two values."""
    low, middle, high = (f"{value:.{digits}f}" for value in quantiles(values, n=4, method="inclusive"))
    return f"{middle} ({low} to {high}; {min(values):.{digits}f} to {max(values):.{digits}f})"
