"""Whole scenes: rasters of any size in, seamless height rasters out."""
