"""From products to a dataset: pairs of image and DTM, checks, tiles, groups by footprint, sides, records."""
