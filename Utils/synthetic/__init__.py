"""Made-up ground and images of it: the data of demos and tests."""
