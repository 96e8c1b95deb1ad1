"""Names that users write in configs for networks of multi-view stereo; without torch.

The modules that build the parts map each name to a class, and a test compares the two.
"""

from __future__ import annotations

from typing import Literal, get_args

NetworkName = Literal["CasMVSNet", "UCSNet", "CasRED"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)
Fusion = Literal["none", "concatenated", "guided"]
"""What a network does with relative depth: nothing; features of it beside those of the images in every view and stage,
as published (RDM-MVS); or the reference's map alone, fitted to the estimate of the stage before."""
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
Counting = Literal["all", "visible"]
"""Views whose variance is taken: all, zeros where a source does not see the point, as published; or only those that see
it."""
COUNTINGS: tuple[Counting, ...] = get_args(Counting)
Norm = Literal["batch", "group"]
"""What normalises activations: batch norm, as published, or group norm, which does not depend on other samples."""
NORMS: tuple[Norm, ...] = get_args(Norm)
STEREO_TASK = "stereo"
"""Name of the task in the checkpoints of these networks."""
STEREO_LOSSES = ("SmoothL1Loss", "L1Loss", "CrossEntropyLoss")
"""Names of the losses of a stage; ``Modules.losses.stereo_losses`` builds them."""
STRIDES = (4, 2, 1)
"""Image pixels a feature pixel, by stage."""
