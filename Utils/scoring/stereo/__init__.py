"""Scores of depth or height from several images, in metres."""
