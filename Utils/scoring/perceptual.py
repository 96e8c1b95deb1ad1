"""LPIPS, the learned perceptual distance of the published protocol (Zhang et al., CVPR 2018), with AlexNet.

The `lpips` package ships the linear layers. The AlexNet under them is torchvision's, read from a file on disk: nothing
is downloaded, and no score ever comes from random weights.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import lpips
import numpy as np
import torch
import torchvision
from numpy.typing import ArrayLike
from safetensors.torch import load_file

from Modules.common.untrusted_weights import load_pickled

WEIGHTS_NAME = "alexnet-owt-7be5be79.pth"
"""The name under which torchvision keeps its AlexNet weights."""

HOW_TO_GET_LPIPS = (
    f"LPIPS is left out: put torchvision's alexnet weights file {WEIGHTS_NAME} in torch.hub's checkpoints folder, "
    "or set lpips_weights."
)
"""The one line to show when `find_lpips_weights` finds nothing."""

# Below this AlexNet's second pooling leaves no pixel.
_SMALLEST_SIDE = 31
_LINEAR_LAYERS = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"
# The convolutions of torchvision's `features`, and the slice of lpips' copy of AlexNet that holds each.
_SLICES = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}


def find_lpips_weights(path: Path | None = None) -> Path | None:
    """Return the AlexNet weights file: `path` when given, else torchvision's cached one, else None.

    Raises:
        FileNotFoundError: `path` is given and is no file. Another file never takes its place silently.
    """
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"lpips_weights: {path} is not a file. It should be a copy of {WEIGHTS_NAME}.")
        return path
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    return cached if cached.is_file() else None


class LpipsScore:
    """LPIPS with AlexNet, version 0.1 of its linear layers, in fp32.

    Args:
        weights: a torchvision AlexNet state dict, as torch saves it or as .safetensors.
        device: where the network runs.

    Raises:
        FileNotFoundError: `weights` is no file.
        ValueError: `weights` holds anything but a whole torchvision AlexNet state dict.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        """Load the network; see the class."""
        state = _load_alexnet(weights)
        state |= torch.load(_LINEAR_LAYERS, map_location="cpu", weights_only=True)
        # On the meta device no random weights are drawn, and a weight that is missing in the file cannot be used
        # unnoticed. torchvision warns about the way in which lpips asks it for the empty AlexNet.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            network = lpips.LPIPS(net="alex", version="0.1", pretrained=False, pnet_rand=True, verbose=False)
        # Not strict: the package registers its linear layers under two names each and stores one.
        unknown = network.load_state_dict(state, strict=False, assign=True).unexpected_keys
        empty = [name for name, tensor in network.state_dict().items() if tensor.is_meta]
        if unknown or empty:
            raise RuntimeError(f"this release of lpips has other weights: {unknown} unknown, {empty} not given.")
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def __call__(self, target: ArrayLike, prediction: ArrayLike) -> float:
        """Return the distance of two (H, W) maps on the 0..255 scale of the paper protocol's stretch; 0 is best.

        The maps are scaled to [-1, 1] and repeated to 3 channels. Invalid pixels must hold the same value in both, as
        the stretch leaves them. NaN when either map holds a NaN or infinity, or a side is below 31 pixels.
        """
        # Copies, because torch takes neither read-only nor flipped arrays.
        true, guess = np.array(target, np.float32, order="C"), np.array(prediction, np.float32, order="C")
        if true.ndim != 2 or true.shape != guess.shape:
            raise ValueError(f"LPIPS compares two (H, W) maps of one shape, and got {true.shape} and {guess.shape}.")
        if min(true.shape) < _SMALLEST_SIDE or not (np.isfinite(true).all() and np.isfinite(guess).all()):
            return float("nan")
        return float(self._network(self._to_input(true), self._to_input(guess)))

    def _to_input(self, values: np.ndarray) -> torch.Tensor:
        scaled = torch.from_numpy(values).to(self._device) / 127.5 - 1  # (H, W) in [-1, 1]
        return scaled.expand(1, 3, *scaled.shape)  # (1, 3, H, W)


def _load_alexnet(path: Path) -> dict[str, torch.Tensor]:
    """Read a torchvision AlexNet state dict, check every name and shape, and name its convolutions as lpips does."""
    if not path.is_file():
        raise FileNotFoundError(f"lpips_weights: {path} is not a file. It should be a copy of {WEIGHTS_NAME}.")
    try:
        if path.suffix == ".safetensors":
            state: object = load_file(path)
        else:
            state = load_pickled(path)
    except PermissionError:
        raise
    except Exception as error:  # a damaged or foreign pickle raises nearly anything
        code = isinstance(error, pickle.UnpicklingError)
        reason = "it is damaged, or holds pickled code, which is never run" if code else _first_line(error)
        raise ValueError(_refusal(path, f"it cannot be read as a file of weights ({reason})")) from error

    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(_refusal(path, "it does not hold names and tensors alone"))
    # The meta device gives names and shapes without memory or random numbers.
    with torch.device("meta"):
        expected = torchvision.models.alexnet(weights=None).state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(map(str, state.keys() - expected.keys()))
    if missing or unknown:
        raise ValueError(_refusal(path, f"it lacks {missing[:3] or 'nothing'} and has {unknown[:3] or 'nothing'} more"))
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise ValueError(_refusal(path, f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"))
    convolutions = {}
    for layer, part in _SLICES.items():
        for kind in ("weight", "bias"):
            name = f"features.{layer}.{kind}"
            if state[name].is_meta or state[name].layout != torch.strided:
                raise ValueError(_refusal(path, f"{name} is no plain tensor"))
            if not torch.isfinite(state[name]).all():
                raise ValueError(_refusal(path, f"{name} holds NaN or infinite values"))
            convolutions[f"net.slice{part}.{layer}.{kind}"] = state[name].float()
    return convolutions


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _refusal(path: Path, reason: str) -> str:
    return f"{path} is not a torchvision AlexNet state dict: {reason}. Use a copy of {WEIGHTS_NAME}."
