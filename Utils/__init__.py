"""What serves every system; it knows no network.

Floors, each of which knows only those below: synthetic, scenes, reports, training, data and scoring, rasters and config
and pictures, core.
"""
