"""Whole photos: find the faces, bring each into the model's frame, put the edits back."""
