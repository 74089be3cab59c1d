"""Markov kernels over a batch of chains, one algorithm a file."""
