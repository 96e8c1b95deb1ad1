"""What serves: configs, data, the training loop, checkpoints, metrics, reports and rasters."""
