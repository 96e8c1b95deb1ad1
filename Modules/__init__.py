"""What learns: networks and losses on tensors.

Nothing here reads a file but weights, knows a config file or a raster, or connects processes.
"""
