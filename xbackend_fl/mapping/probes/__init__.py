"""Weights and data that make differences visible, and the programs that run a model or a graph on them."""
