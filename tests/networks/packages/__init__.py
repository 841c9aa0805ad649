"""Pairs whose both sides come from public packages, and where to find the map of their weights."""
