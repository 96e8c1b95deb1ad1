"""Where scenes are predicted: the processes that do it, and what they do of a scene."""
