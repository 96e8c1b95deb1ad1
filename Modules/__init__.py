"""What learns: networks, losses, the blending schedule and the two-stage model."""
