"""Maps of every view of a dataset folder in the published tree, and a height raster of them.

Rasters straight from a vendor's images are made in ``dsm``; this folder uses its fusion of points.
"""
