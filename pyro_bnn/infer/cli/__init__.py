"""The command line: model script and recipe in, run directory out."""
