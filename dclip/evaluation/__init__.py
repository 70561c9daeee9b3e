"""Judging edits by what took no part in making them."""
