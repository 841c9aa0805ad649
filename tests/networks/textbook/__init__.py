"""Textbook networks written twice, as two teams would, with the map that a person would write."""
