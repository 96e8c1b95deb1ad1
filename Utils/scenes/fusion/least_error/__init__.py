"""The surface of least error through the cells of a DEM: spectra of the ground, estimates in windows, windows joined."""
