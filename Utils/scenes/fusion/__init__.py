"""From relative heights to metres: a reference DEM or points, and the model's detail on top."""
