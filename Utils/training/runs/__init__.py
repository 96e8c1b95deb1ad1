"""Runs: what a training script carries out, the folder that it leaves, and the list of all runs.

What steps are made of lies in the folder above.  ``python -m Utils.training.runs`` lists runs.
"""
