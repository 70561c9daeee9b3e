"""CLIP, DDPM, DDIM and guidance on points in the plane (docs/explain.md)."""
