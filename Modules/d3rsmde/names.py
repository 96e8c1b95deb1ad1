"""Names that users write in configs for the parts of D³-RSMDE; without torch.

The modules that build the parts map each name to a class, and a test compares the two.
"""

from __future__ import annotations

from typing import Literal, get_args

LargeVaeType = Literal["AutoencoderKL", "VA_VAE", "DC_AE"]
VaeType = Literal[LargeVaeType, "AutoencoderTiny"]
VAE_TYPES: tuple[VaeType, ...] = get_args(VaeType)
Readout = Literal["project", "add", "ignore"]
MAP_LOSSES = ("HDNLoss", "L1Loss", "SSIMAELoss")
"""Names of the losses of both stages; ``Modules.losses.height_losses`` builds them."""
