"""dclip: edit photos of faces (and other aligned domains) by text with diffusion models."""

__version__ = "0.1.0"
