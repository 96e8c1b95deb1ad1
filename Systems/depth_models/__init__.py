"""Depth models that transformers knows: their files, what rises in their maps, and loading them."""
