"""Where the values of two graphs part, and which one change would bring them together."""
