"""Photos and tuned models to edits: how they are written, planned, decoded and masked."""
