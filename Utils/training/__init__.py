"""The training loop and what a run leaves on disk; it knows tasks by their hooks and no network by name."""
