"""Cutting images and DEMs into the tiles of a dataset: pairing, resampling, spatial blocks, writing.

What is done with finished tiles belongs elsewhere: reading them in ``Utils/rasters``, judging them in the audit.
"""
