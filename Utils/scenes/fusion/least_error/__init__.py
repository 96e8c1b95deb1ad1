"""The surface of least error through a DEM's cells: spectra of the ground, estimates in windows, windows joined."""
