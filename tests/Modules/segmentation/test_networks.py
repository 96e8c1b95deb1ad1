"""Networks of land cover: they start as the image alone, take any size, and have the parameters that were stated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from Modules.backbones.pyramid import TimmPyramid
from Modules.common.components import load_component
from Modules.losses.segmentation_losses import CrossEntropyLoss
from Modules.segmentation import SegmentationNetwork
from Modules.segmentation.names import FUSIONS, HEADS, Fusion, Head
from Modules.segmentation.sliding import sliding_probabilities, window_starts
from Systems.segmentation.rates import decayed_groups

CLASSES = ("ground", "roof", "road")


def network(fusion: Fusion = "gate", head: Head = "mlp", seed: int = 0, **more: object) -> SegmentationNetwork:
    torch.manual_seed(seed)
    options = {"channels": 8, "head_width": 8, "classes": CLASSES} | more
    return SegmentationNetwork("test_convnext", "test_convnext2", fusion, head, **options)  # type: ignore[arg-type]


def inputs(batch: int = 1, height: int = 64, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 3, height, width), torch.rand(batch, 1, height, width)


@pytest.mark.parametrize("fusion", ["gate", "add", "concat"])
def test_a_new_network_draws_what_the_image_alone_gives(fusion: Fusion) -> None:
    """Exactly, whatever the map: networks of one seed share the parts that they share."""
    alone, fused = network("none").eval(), network(fusion).eval()
    image, depth = inputs(2)
    with torch.no_grad():
        expected = alone(image)
        assert torch.equal(fused(image, depth), expected)
        assert torch.equal(fused(image, None), expected)
    assert expected.std() > 0
    assert sum(p.numel() for p in fused.parameters()) > sum(p.numel() for p in alone.parameters())


@pytest.mark.parametrize("fusion", ["gate", "add", "concat"])
def test_after_a_step_the_map_is_learnt_from(fusion: Fusion) -> None:
    fused = network(fusion).train()
    image, depth = inputs(2)
    label = torch.randint(0, 3, (2, 64, 64))
    optimiser = torch.optim.SGD(fused.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        CrossEntropyLoss()(fused(image, depth), label).backward()
        optimiser.step()
    for encoder in fused.encoders:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    fused.eval()
    with torch.no_grad():
        assert not torch.equal(fused(image, depth), fused(image, depth.flip(-1)))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_any_size_gives_scores_of_that_size(fusion: Fusion, head: Head) -> None:
    drawn = network(fusion, head, auxiliary=True).train()
    image, depth = inputs(1, 65, 97)
    scores = drawn.all_scores(image, depth)  # batch of one: no norm may need more
    assert [tuple(each.shape) for each in scores] == [(1, 3, 65, 97)] * 2
    assert all(each.isfinite().all() for each in scores)


def test_depth_alone_sees_no_colour() -> None:
    drawn = network("depth_alone").eval()
    image, depth = inputs()
    with torch.no_grad():
        assert torch.equal(drawn(image, depth), drawn(image.flip(-1), depth))
        with pytest.raises(ValueError, match="sees relative depth alone"):
            drawn(image)


def test_the_pair_of_base_and_small_has_the_stated_parameters() -> None:
    """143.4 million, counted without memory."""
    with torch.device("meta"):
        pair = SegmentationNetwork("convnext_base", "convnext_small", classes=tuple("abcdefg"))
    assert sum(p.numel() for p in pair.parameters()) / 1e6 == pytest.approx(143.4, abs=0.05)


def test_a_saved_network_is_the_same(tmp_path: Path) -> None:
    saved = network("gate", colours=[[0, 0, 0], [255, 0, 0], [9, 9, 9]], trained_on=["Urban"]).eval()
    saved.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = load_component(SegmentationNetwork, tmp_path).eval()
    image, depth = inputs()
    with torch.no_grad():
        assert torch.equal(loaded(image, depth), saved(image, depth))
    assert list(loaded.config["classes"]) == list(CLASSES) and list(loaded.config["trained_on"]) == ["Urban"]


def test_encoders_without_partner_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="has no partner"):
        SegmentationNetwork("test_convnext", "test_vit", classes=CLASSES, depth_options={"img_size": 64})
    with pytest.raises(ValueError, match="unknown fusion 'sum'"):
        network("sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two or more, each once"):
        network(classes=("roof", "roof"))


def test_an_encoder_of_maps_takes_its_first_layer_from_that_of_colours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    coloured = TimmPyramid("test_convnext").eval()
    weights = {
        key.replace("_", ".", 1) if key.startswith(("stem_", "stages_")) else key: value
        for key, value in coloured.features.state_dict().items()
    }
    import timm

    whole = timm.create_model("test_convnext", num_classes=0)
    state = whole.state_dict()
    state.update({key: value for key, value in weights.items() if key in state})
    torch.save(state, tmp_path / "weights.pth")
    grey = TimmPyramid("test_convnext", {"in_chans": 1}, tmp_path / "weights.pth").eval()
    values = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        for one, other in zip(grey(values), coloured(values.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # a sum in another order


def test_windows_of_a_model_without_neighbours_are_the_whole_image() -> None:
    torch.manual_seed(0)
    pointwise = nn.Conv2d(4, 3, 1)

    def scores(image: torch.Tensor, depth: torch.Tensor | None) -> torch.Tensor:
        assert depth is not None
        return pointwise(torch.cat([image, depth], dim=1))

    image, depth = inputs(2, 61, 83)
    with torch.no_grad():
        whole = sliding_probabilities(scores, image, depth)
        windows = sliding_probabilities(scores, image, depth, window=24, stride=17)
    torch.testing.assert_close(windows, whole)
    torch.testing.assert_close(windows.sum(dim=1), torch.ones(2, 61, 83))
    assert window_starts(61, 24, 17) == [0, 17, 34, 37] and window_starts(24, 24, 17) == [0]
    with pytest.raises(ValueError, match="leaves pixels out"):
        sliding_probabilities(scores, image, depth, window=24, stride=25)


def test_windows_average_probabilities_where_they_overlap() -> None:
    """Two windows of 4 of 6 pixels that each say another class: the two in the middle are half and half."""

    def scores(image: torch.Tensor, depth: torch.Tensor | None) -> torch.Tensor:
        sure = 50.0 * (image[:, :1, :, :1].expand(-1, 1, *image.shape[-2:]) * 2 - 1)
        return torch.cat([sure, -sure], dim=1)

    image = torch.zeros(1, 3, 4, 6)
    image[..., 2] = 1.0  # the second window begins here
    found = sliding_probabilities(scores, image, window=4, stride=2)
    assert found[0, 0, 0].tolist() == pytest.approx([0, 0, 0.5, 0.5, 1, 1])


def test_the_loss_is_the_mean_over_labelled_pixels_then_over_images() -> None:
    scores = torch.tensor([[[[0.0, 0.0, 9.0]], [[0.0, 2.0, 9.0]]], [[[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    label = torch.tensor([[[0, 1, 255]], [[255, 255, 255]]])
    first = (torch.tensor(2.0).log() + torch.log1p(torch.tensor(-2.0).exp())) / 2
    assert CrossEntropyLoss()(scores, label) == pytest.approx(float(first) / 2)
    weighted = (3 * torch.tensor(2.0).log() + torch.log1p(torch.tensor(-2.0).exp())) / 4
    assert CrossEntropyLoss([3.0, 1.0])(scores, label) == pytest.approx(float(weighted) / 2)
    with pytest.raises(ValueError, match="class weights"):
        CrossEntropyLoss([0.0, 0.0])


def test_a_frozen_encoder_learns_by_its_adapters_alone(tmp_path: Path) -> None:
    """It starts as the frozen one, a step moves nothing else of it, and a folder keeps it."""
    torch.manual_seed(0)
    options = {"patch_size": 8}
    more = {"channels": 8, "classes": CLASSES, "options": options}
    adapted = SegmentationNetwork("test_vit", fusion="none", adapter_width=4, **more)  # type: ignore[arg-type]
    plain = SegmentationNetwork("test_vit", fusion="none", **more)  # type: ignore[arg-type]
    inner = {key.replace(".mlp.inner.", ".mlp."): value for key, value in adapted.state_dict().items()}
    plain.load_state_dict(
        {key: value for key, value in inner.items() if ".mlp.down." not in key and ".mlp.up." not in key}
    )
    image, _ = inputs(2)
    with torch.no_grad():
        assert torch.equal(adapted.eval()(image), plain.eval()(image))
    learns = {name for name, value in adapted.named_parameters() if value.requires_grad}
    frozen = {name: value.clone() for name, value in adapted.named_parameters() if not value.requires_grad}
    width, blocks = 64, 6
    mine = sum(value.numel() for name, value in adapted.named_parameters() if name in learns and "encoder" in name)
    assert mine == blocks * (2 * width * 4 + width + 4)
    assert {name for name in frozen if not name.startswith("encoder.")} == set()
    chosen = [value for group in decayed_groups(adapted, 1.0) for value in group.parameters]
    assert len(chosen) == len(learns)
    optimiser = torch.optim.SGD(chosen, lr=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        CrossEntropyLoss()(adapted.train()(image), torch.randint(0, 3, (2, 64, 64))).backward()
        optimiser.step()
    after = dict(adapted.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert all(after[name].abs().sum() > 0 for name in learns if ".mlp.up." in name)
    adapted.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_component(SegmentationNetwork, tmp_path).eval()(image), adapted(image))
    with pytest.raises(ValueError, match="no transformer blocks"):
        network("none", adapter_width=4)
