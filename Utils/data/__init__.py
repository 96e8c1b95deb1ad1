"""From files to batches: the layout on disk, samples, splits, loaders."""
