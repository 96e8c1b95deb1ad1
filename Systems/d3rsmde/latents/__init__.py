"""Latents of the training tiles: how they are kept on disk, and how an autoencoder scales them."""
