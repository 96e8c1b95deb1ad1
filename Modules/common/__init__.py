"""What networks of every system share: untrusted weights, hub files, number formats, padding, normalisation."""
