"""The data audit: it reads a dataset once and reports everything that is wrong or unusual in it.

python -m Systems.audit --dataset DIR [--config FILE] [--splits FILE ...] [--priors DIR] [--output FOLDER]
"""
