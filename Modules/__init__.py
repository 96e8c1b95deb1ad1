"""What learns: networks and losses on tensors.

Modules read no files but weights; they know neither config files nor rasters, and connect no processes.
"""
