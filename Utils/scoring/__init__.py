"""Scores of predicted maps, one file a protocol, and their summary over tiles."""
