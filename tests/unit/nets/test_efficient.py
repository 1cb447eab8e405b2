from __future__ import annotations

import pytest
import torch

from geodl.nets.efficient import EfficientDetNet, effdet_part


@pytest.fixture(scope="module")
def net() -> EfficientDetNet:
    torch.manual_seed(0)
    return EfficientDetNet("tf_efficientdet_lite0", 2, 3, 100, 1.0)


def batch() -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    torch.manual_seed(3)
    boxes = torch.tensor([[4.0, 6.0, 22.0, 20.0], [30.0, 30.0, 60.0, 50.0]])
    return torch.randn(2, 3, 100, 100), [
        {"boxes": boxes, "labels": torch.tensor([1, 2])},
        {"boxes": boxes[:1], "labels": torch.tensor([2])},
    ]


def test_tiles_grow_to_whole_coarsest_cells(net: EfficientDetNet) -> None:
    assert net.side_px == 128
    with torch.inference_mode():
        for boxes, _, _ in net.eval()(batch()[0]).decode(0.0):
            assert len(boxes)
            assert 0 <= boxes.min() <= boxes.max() <= 100


def test_losses_and_boxes_are_those_of_effdets_own_bench(net: EfficientDetNet) -> None:
    x, targets = batch()
    net.eval()
    bench = effdet_part("effdet.bench").DetBenchTrain(net.model)
    bench.anchors.boxes.copy_(net.anchors.boxes)
    bench.eval()
    padded = torch.nn.functional.pad(x, (0, 28, 0, 28))
    given = {
        "bbox": [t["boxes"][:, [1, 0, 3, 2]] for t in targets],
        "cls": [t["labels"] for t in targets],
        "img_scale": torch.ones(2),
        "img_size": torch.full((2, 2), 100.0),
    }
    with torch.no_grad():
        bench.max_detection_points = 1000
        expected, output = bench(padded, given), net(x)
        losses, found = output.losses(targets), output.decode(0.0)
    for key in ("loss", "class_loss", "box_loss"):
        assert torch.equal(losses[key], expected[key]), key
    for (boxes, scores, labels), rows in zip(found, expected["detections"], strict=True):
        # It keeps a hundred, and boxes that have shrunk to the edge of the image.
        rows = rows[(rows[:, 2:4] > rows[:, :2]).all(dim=1)]
        count = len(rows)
        assert count > 20
        assert torch.allclose(boxes[:count], rows[:, :4], atol=1e-4)
        assert torch.allclose(scores[:count], rows[:, 4], atol=1e-6)
        assert torch.equal(labels[:count], rows[:, 5].long())


def test_a_batch_without_boxes_teaches_background(net: EfficientDetNet) -> None:
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = net.train()(batch()[0]).losses([empty, empty])
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert losses["box_loss"] == 0
    net.zero_grad()
