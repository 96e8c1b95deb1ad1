"""Typed configs: sections, loading, and the keys that all training and all evaluation configs share.

The keys of one system stand in that system's own config module.
"""
