"""The recurrent encoder-decoder of RED-Net: one hypothesis after another, with memory of those before.

Liu and Ji, "A novel recurrent encoder-decoder structure for large-scale multi-view stereo reconstruction from an open
aerial dataset", CVPR 2020.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, cat, nn
from torch.nn import functional

States = list[Tensor]
DIVISOR = 8
"""Height and width are to be multiples of this."""


class GatedUnit(nn.Module):
    """A convolutional gated recurrent unit whose gates and candidate are normalised over their channels.

    Args:
        inputs: channels of the input.
        hidden: channels of the state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(inputs + hidden, 2 * hidden, 3, padding=1)
        self.reset_norm = nn.GroupNorm(1, hidden)
        self.update_norm = nn.GroupNorm(1, hidden)
        self.candidate = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)
        self.candidate_norm = nn.GroupNorm(1, hidden)

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """The next state (B, hidden, h, w), from the input (B, inputs, h, w) and the present one."""
        reset, update = self.gates(cat([values, state], dim=1)).chunk(2, dim=1)
        reset = self.reset_norm(reset).sigmoid()
        update = self.update_norm(update).sigmoid()
        candidate = self.candidate_norm(self.candidate(cat([values, reset * state], dim=1))).tanh()
        return update * state + (1 - update) * candidate


class RecurrentRegulariser(nn.Module):
    """Scores of hypotheses, one slice of the cost volume at a time.

    Args:
        channels: channels of the volume.
        base: channels of the state at the full size; 8 as published: 346,177 parameters with 16 channels.
    """

    def __init__(self, channels: int, base: int = 8) -> None:
        super().__init__()
        widths = [base, 2 * base, 4 * base, 8 * base]
        self.widths = widths
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in zip([channels, *widths[1:]], widths[1:], strict=False)
        )
        self.units = nn.ModuleList(GatedUnit(a, b) for a, b in zip([channels, *widths[1:]], widths, strict=True))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 3, 2, 1, output_padding=1, bias=False) for a, b in pairwise(widths)
        )
        self.score = nn.ConvTranspose2d(base, 1, 3, 1, 1)

    def first_states(self, cost: Tensor) -> States:
        """Zeros for the states at the full size, a half, a quarter and an eighth of a slice (B, C, h, w)."""
        height, width = cost.shape[-2:]
        return [
            cost.new_zeros(len(cost), channels, height >> level, width >> level)
            for level, channels in enumerate(self.widths)
        ]

    def slice(self, cost: Tensor, states: States) -> tuple[Tensor, States]:
        """Score one slice.

        Args:
            cost: (B, C, h, w), the variance of the views; h and w are multiples of 8.
            states: those after the slice before.

        Returns:
            The scores (B, h, w), and the states after it.
        """
        inputs = [-cost]
        for down in self.down:
            inputs.append(functional.relu(down(inputs[-1])))
        states = [unit(values, state) for unit, values, state in zip(self.units, inputs, states, strict=True)]
        values = states[-1]
        for level in reversed(range(len(self.up))):
            values = functional.relu(self.up[level](values)) + states[level]
        return self.score(values).squeeze(1), states

    def forward(self, volume: Tensor) -> Tensor:
        """Volume (B, C, D, h, w), h and w multiples of 8, to scores (B, D, h, w); the highest is the best."""
        states = self.first_states(volume[:, :, 0])
        scores = []
        for cost in volume.unbind(2):
            score, states = self.slice(cost, states)
            scores.append(score)
        return torch.stack(scores, dim=1)
