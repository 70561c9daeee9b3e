"""Scores of edits by models and pictures that took no part in making them."""
