"""The kinds of sources: a file here is one, and its name is what stands before the colon of ``data.source``."""
