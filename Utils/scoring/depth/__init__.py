"""Scores of depth in metres, and the published protocols of relative depth."""
