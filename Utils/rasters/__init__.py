"""Reading and writing rasters, GDAL's settings, distances on the ground."""
