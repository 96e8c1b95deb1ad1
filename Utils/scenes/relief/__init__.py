"""Height rasters as surfaces in three dimensions: the grid, the GLB file, and the path of a flight over it."""
