"""Latent diffusion: the autoencoder between pictures and the latents that a network denoises."""
