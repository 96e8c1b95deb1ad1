"""One small scene, and disguises that must not change its heights."""
