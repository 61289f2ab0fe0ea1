"""Weights of other projects, by the names of their tensors."""
