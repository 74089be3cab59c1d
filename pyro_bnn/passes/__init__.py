"""Passes over ATen graphs of batched log densities: the same values, faster.

Each pass is a function that rewrites a graph in place, one a file. A pass that finds nothing it
knows leaves the graph as it is.
"""
