"""infer/cli."""
