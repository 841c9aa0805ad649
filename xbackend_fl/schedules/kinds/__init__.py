"""The schedules, one a file; a file that is put here is found by its ``SCHEDULE``."""
