"""The data audit: reads a dataset once and reports everything that is wrong with it, or only odd.

python -m Systems.audit --dataset DIR [--config FILE] [--splits FILE ...] [--priors DIR] [--output FOLDER]
"""
