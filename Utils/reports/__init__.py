"""Evaluation, and the tables and pages that show it."""
