"""The public archive of HiRISE stereo products: its listings, what is wanted of it, and downloads that can go on."""
