"""Heights and depths from several images: camera geometry, cost volumes, and the networks on them.

Names, rasters and configs of such images belong elsewhere; this folder knows tensors only.
"""
