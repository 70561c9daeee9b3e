"""The diffusion maths: pure functions on an immutable schedule (conventions: docs/diffusion.md).

Nothing in here disables gradients, draws random numbers or keeps state: the caller does.
"""
