"""Folding of trained networks into convolutions with biases, in one of several exact forms."""
