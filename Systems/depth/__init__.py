"""Depth from one image, relative or in metres: Enc-Dec-IRv2, and its decoder on any timm encoder."""
