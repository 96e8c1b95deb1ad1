"""Latents of the training tiles: kept on disk, and the scale that an autoencoder gives them."""
