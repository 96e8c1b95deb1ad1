"""From a vendor's images to a height raster: what predictStereo.py does.

Views and their cameras, the ground that they share, matching tile by tile, the filter between views, fusion to a grid,
and the files that are written. How heights are found in a tile is a matcher's business: the sweep, or a network.
"""
