"""Scores of class maps: one confusion matrix over all tiles, boundaries, calibration, and published numbers."""
