"""The server optimizers, one a file; a file that is put here is found by its ``SERVER``."""
