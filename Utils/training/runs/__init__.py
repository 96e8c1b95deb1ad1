"""Runs: what a training script carries out, the folder that it leaves, and the list of all runs.

The parts of a training step are in the folder above. ``python -m Utils.training.runs`` lists runs.
"""
