"""Encoders that turn an image into feature maps at several strides; decoders lie with their system."""
