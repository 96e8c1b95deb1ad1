"""The scene in overlapping tiles: where they lie, how they are predicted, how they are kept until all are done."""
