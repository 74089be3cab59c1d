"""Warm-up: what a kernel learns about its target before the draws that count."""
