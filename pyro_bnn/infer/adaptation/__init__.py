"""infer/adaptation."""
