"""The networks of D³-RSMDE: coarse ViT, autoencoders, refiner, its blending schedule, and the whole model."""
