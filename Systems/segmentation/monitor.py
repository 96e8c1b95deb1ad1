"""The score by which the training of a network of land cover chooses its weights; without torch."""

MONITORED = "pooled.miou"
