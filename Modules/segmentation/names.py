"""Names that users write in configs for networks of land cover; without torch.

The modules that build the parts map each name to a class, and a test compares the two.
"""

from __future__ import annotations

from typing import Literal, get_args

Fusion = Literal["gate", "add", "concat", "none", "depth_alone"]
"""What a network does with relative depth, at every level: ``gate`` lets an image decide how much of it counts,
``concat`` counts all of it, ``add`` adds it to the image's features; ``none`` sees the image alone, ``depth_alone`` the
map alone. The first three start as ``none``."""
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
Head = Literal["mlp", "upernet"]
"""What makes classes of the levels: all of them at the finest size, mixed by 1 x 1 convolutions; or UPerNet."""
HEADS: tuple[Head, ...] = get_args(Head)
SEGMENTATION_TASK = "segmentation"
"""Name of the task in the checkpoints of these networks."""
SEGMENTATION_LOSSES = ("CrossEntropyLoss",)
"""Names of the losses of these networks; ``Modules.losses.segmentation_losses`` builds them."""
