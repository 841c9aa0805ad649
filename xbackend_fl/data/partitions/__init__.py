"""The partitions, one a file; a file that is put here is found by its ``PARTITION``."""
