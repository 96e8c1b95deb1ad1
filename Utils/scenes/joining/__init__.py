"""From the maps of single tiles to one mosaic."""
