"""The scene that is read: its files, bands, valid pixels and stretch."""
