"""Names that users write in configs for depth networks; without torch.

The modules that build the parts map each name to a class, and a test compares the two.
"""

from __future__ import annotations

from typing import Literal, get_args

PUBLISHED_NETWORK = "EncDecIRv2"
DEPTH_TASK = "depth"
"""Name of the task in the checkpoints of these networks."""
Target = Literal["relative", "metres", "summit"]
"""What a network draws: ``relative``, a map in (0, 1) within each image; ``metres``, a map in metres; ``summit``, how
many metres below the highest point of the image the ground lies, for images from above. Whether the first two are of
depth or of height is the network's ``direction``."""
TARGETS: tuple[Target, ...] = get_args(Target)
Taps = Literal["published", "timm"]
"""Where an Inception-ResNet-v2 is tapped: as in the paper, or at timm's own features."""
ChannelOrder = Literal["RGB", "BGR"]
Scaling = Literal["mean_std", "min_max", "none"]
DecoderName = Literal["EncDec", "GLPN"]
"""The decoder of Enc-Dec-IRv2, or that of GLPN."""
DEPTH_LOSSES = (
    "SSIMEdgeL1Loss",
    "SILogLoss",
    "L1Loss",
    "OffsetFreeL1Loss",
    "GradientLoss",
    "HDNLoss",
    "SSIMAELoss",
)
"""Names of the losses of depth networks; ``Modules.losses.depth_losses`` builds them."""
