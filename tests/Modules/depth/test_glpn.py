"""GLPN: the published size, the maps of transformers' own, grey images, and a folder that gives it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import GLPNConfig, GLPNForDepthEstimation

from Modules.backbones.mix_transformer import MixTransformerPyramid
from Modules.common.components import load_component
from Modules.depth import EncDec


def glpn(backbone: str = "mit_b0", **changes: object) -> EncDec:
    settings = {"target": "summit", "max_depth": 700.0, "scaling": "none", "options": {"in_chans": 1}} | changes
    return EncDec(backbone, decoder_name="GLPN", widths=[64], **settings)  # type: ignore[arg-type]


def test_with_the_largest_usual_encoder_it_has_the_published_size() -> None:
    with torch.device("meta"):
        assert sum(part.numel() for part in glpn("mit_b4").parameters()) == 61_214_631
    assert sum(part.numel() for part in glpn().parameters()) == 3_661_703


def test_maps_are_those_of_transformers_with_the_same_weights() -> None:
    torch.manual_seed(0)
    theirs = GLPNForDepthEstimation(GLPNConfig(num_channels=1, max_depth=700)).eval()
    ours = glpn().eval()
    ours.encoder.model.load_state_dict(theirs.glpn.state_dict())
    # In the same order: convolutions that reduce and blocks that fuse, from the coarsest level on, then the head.
    for stage, reduce in zip(theirs.decoder.stages, ours.decoder.reduce, strict=True):
        reduce.load_state_dict(stage.convolution.state_dict())
    for stage, fuse in zip(theirs.decoder.stages[1:], ours.decoder.fuse, strict=True):
        given = list(stage.fusion.state_dict().values())
        fuse.load_state_dict(dict(zip(fuse.state_dict(), given, strict=True)))
    ours.decoder.head.load_state_dict(theirs.head.head.state_dict())
    grey = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        expected = theirs(grey).predicted_depth
        torch.testing.assert_close(ours(grey.expand(-1, 3, -1, -1))[:, 0], expected)
        # Of any other size, the same in size out.
        assert ours(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)


def test_a_folder_gives_it_back(tmp_path: Path) -> None:
    network, image = glpn().eval(), torch.rand(1, 3, 32, 32)
    network.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_component(EncDec, tmp_path).eval()(image), network(image))


def test_weights_of_colour_images_are_added_up_for_grey_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    coloured = MixTransformerPyramid("mit_b0").eval()
    # As files of SegFormer are: the encoder's names behind a front, and a decoder that nobody needs.
    content = {f"segformer.{name}": value for name, value in coloured.model.state_dict().items()}
    save_file(content | {"decode_head.classifier.weight": torch.zeros(1)}, tmp_path / "mit.safetensors")
    grey = MixTransformerPyramid("mit_b0", {"in_chans": 1}, tmp_path / "mit.safetensors").eval()
    image = torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        for one, other in zip(grey(image), coloured(image.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="another network than backbone 'mit_b1'"):
        MixTransformerPyramid("mit_b1", weights=tmp_path / "mit.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no Mix Transformer"):
        MixTransformerPyramid("mit_b0", weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"options": {"in_chans": 2}}, "images have 1 or 3 channels"),
        ({"options": {"checkpoint_path": "x"}}, "no such option: checkpoint_path"),
        ({"backbone": "test_vit"}, "strides 4, 8"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        glpn(**{"options": None} | wrong)
