"""Frames over Flower. ``door`` is all that anything else imports."""
