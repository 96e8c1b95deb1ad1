"""The score by which the training of a stereo network chooses its weights; without torch."""

MONITORED = "stereo.mae"
