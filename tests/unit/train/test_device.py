import logging

import torch

from geodl.train.device import quiet_engine, to_device


def test_a_batch_keeps_its_shape_and_images_become_channels_last():
    batch = {
        "image": torch.rand(2, 3, 4, 5),
        "target": [{"boxes": torch.rand(1, 4), "labels": torch.ones(1, dtype=torch.int64)}],
        "name": ["a", "b"],
    }
    moved = to_device(batch, torch.device("cpu"))
    assert torch.equal(moved["image"], batch["image"])
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved["target"][0]["boxes"], batch["target"][0]["boxes"])
    assert moved["name"] == ["a", "b"]


def test_the_engines_notices_are_silenced_only_inside():
    logger = logging.getLogger("lightning_fabric.utilities.rank_zero")
    logging.getLogger("lightning_fabric").setLevel(logging.INFO)
    with quiet_engine():
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
    assert logger.isEnabledFor(logging.INFO)
