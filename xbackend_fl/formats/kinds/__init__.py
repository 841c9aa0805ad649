"""The formats of weight files, one a file; a file that is put here is found by its ``FORMAT``."""
