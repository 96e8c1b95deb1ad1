"""Depth networks at the size of Enc-Dec-IRv2's frames: it, and what stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.models.peers import build_depth_anything, build_dinov2_dpt, build_glpn
from benchmarks.models.sizes import Sizes
from benchmarks.models.subject import Size, Subject
from benchmarks.plan import DINOV2_DPT, ENC_DEC
from Modules.depth.enc_dec import EncDec


def build_enc_dec(sizes: Sizes, size: Size) -> Subject:
    """Enc-Dec-IRv2 with random weights, ready to predict."""
    arguments: dict[str, Any] = dict(sizes.enc_dec)
    network = EncDec(**arguments).eval()
    return Subject(
        label="ours: Enc-Dec-IRv2",
        networks=[network],
        run=lambda images, steps: network(images),
        parts={"encoder": network.encoder, "decoder": network.decoder},
        switch=lambda switches: network.optimise(**vars(switches)),
    )


FRAMES: dict[str, Callable[[Sizes, Size], Subject]] = {
    ENC_DEC: build_enc_dec,
    DINOV2_DPT: build_dinov2_dpt,
    "depth-anything-small": lambda *given: build_depth_anything("small", *given),
    "glpn": build_glpn,
}
