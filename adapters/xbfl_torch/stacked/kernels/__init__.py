"""Triton kernels over stacked arrays, float32. Sums are made in one order, without atomic additions: a run repeats its bits.

Products are exact to float32's rounding: three passes of the matrix units' shorter format.
"""
