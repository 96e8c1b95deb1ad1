"""Mars: HiRISE stereo products from the archive to tiles; trainDepth.py and predict.py do the rest."""
