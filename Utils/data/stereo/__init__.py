"""Sets of overlapping images with their cameras: reading the published datasets and tables, choosing views, checks."""
