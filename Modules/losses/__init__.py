"""Losses that take a prediction, a target and a mask of valid pixels; one family a file."""
