"""Whole rasters as classes: probabilities averaged over tiles, class rasters, polygons, and their scores."""
