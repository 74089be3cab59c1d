"""infer/kernels."""
