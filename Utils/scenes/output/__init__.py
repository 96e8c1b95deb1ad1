"""The height raster that is written, its preview and its report."""
