"""Frames over Flower; nothing else imports it."""
