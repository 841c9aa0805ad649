"""One metric a file: every module here holds a ``METRIC``, and the registry finds it."""
