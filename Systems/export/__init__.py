"""Trained models as ONNX files, which run without torch: ``python -m Systems.export``.

A file is kept only when onnxruntime draws with it what torch draws. It belongs to no system, and goes through what each
system says of loading its models.
"""
