"""The mean teacher: it draws with the averaged weights, leaves the student alone, and is trusted by its confidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from Modules.segmentation import SegmentationNetwork
from Modules.segmentation.mean_teacher import pseudo_labels, taught_loss, teacher_probabilities


def test_the_teacher_has_other_weights_and_leaves_the_student_as_it_was() -> None:
    torch.manual_seed(0)
    student, other = (
        SegmentationNetwork("test_convnext", fusion="none", classes=("a", "b"), channels=8) for _ in range(2)
    )
    student.train()
    student.classifier.eval()  # a part that is in another mode than the rest
    modes = [part.training for part in student.modules()]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    image = torch.rand(2, 3, 64, 64)
    average = {name: value for name, value in other.state_dict().items() if value.is_floating_point()}
    found = teacher_probabilities(student, average, image, None)
    with torch.no_grad():
        torch.testing.assert_close(found, other.eval()(image).softmax(dim=1))
    assert not found.requires_grad
    assert [part.training for part in student.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_pixels_count_alone_or_by_the_share_of_their_image_that_the_teacher_is_sure_of() -> None:
    probabilities = torch.tensor([[[[0.99, 0.6]], [[0.01, 0.4]]], [[[0.2, 0.5]], [[0.8, 0.5]]]])
    label, each = pseudo_labels(probabilities, 0.9, by_image=False)
    assert each.tolist() == [[[1.0, 0.0]], [[0.0, 0.0]]]
    label, trust = pseudo_labels(probabilities, 0.9, by_image=True)
    assert label[:, 0].tolist()[0] == [0, 0] and label[1, 0, 0] == 1
    assert trust.flatten().tolist() == [0.5, 0.0]
    scores = torch.tensor([[[[0.0, 0.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[0.0, 2.0]]]], requires_grad=True)
    pasted = torch.tensor([[[255, 255]], [[255, 1]]])
    loss = taught_loss(scores, label, trust, pasted)
    # Both pixels of the first image at half weight; of the second the pasted one alone, in full.
    assert float(loss.detach()) == pytest.approx((2 * 0.5 * math.log(2) + math.log1p(math.exp(-2))) / 4)
    # Only the sure pixel of the first image, and the pasted one.
    alone = float(taught_loss(scores, label, each, pasted).detach())
    assert alone == pytest.approx((math.log(2) + math.log1p(math.exp(-2))) / 4)
    loss.backward()
    assert scores.grad is not None and scores.grad[1, :, 0, 0].abs().max() == 0 and scores.grad[0].abs().min() > 0


def test_a_network_of_one_pixel_can_be_taught() -> None:
    """A pointwise student follows a teacher that is sure, and does not move for one that is not."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 8, 8)

    class Pointwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, image: torch.Tensor, depth: torch.Tensor | None) -> torch.Tensor:
            return self.conv(image)

    student, teacher = Pointwise(), Pointwise()
    nothing = torch.full((1, 8, 8), 255)
    for gain, sure in ((1000.0, True), (0.001, False)):
        average = {f"conv.{name}": gain * value for name, value in teacher.conv.state_dict().items()}
        label, trust = pseudo_labels(teacher_probabilities(student, average, image, None), 0.9, by_image=True)
        student.zero_grad()
        taught_loss(student(image, None), label, trust, nothing).backward()
        assert student.conv.weight.grad is not None
        assert bool(student.conv.weight.grad.abs().max() > 1e-3) is sure
