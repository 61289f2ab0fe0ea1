"""A trained network folded: convolutions with biases, in one of several exact forms."""
