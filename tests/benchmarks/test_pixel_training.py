"""Training of pixel models against a plain PyTorch loop over the same batches, in one run."""

from __future__ import annotations

import copy
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from geodl.base.errors import OfflineWarning
from geodl.core.contract import IGNORE_INDEX
from geodl.data.prepare import prepare_data
from geodl.models.unet_classifier import UnetClassifier
from geodl.testing import make_chips

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

EPOCHS, CHIP, BATCH, TURNS = 2, 128, 8, 3


def plain_s(model: Any, data: Any) -> float:
    """Seconds of CPU of the shortest loop that trains the same network on the same batches."""
    net = copy.deepcopy(model.net).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    loader = data.train_loader(model.task.train_collate, generator=torch.Generator().manual_seed(0))
    started = time.process_time()
    for _ in range(EPOCHS):
        for batch in loader:
            x = batch["image"].contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(net(x), batch["target"], ignore_index=IGNORE_INDEX)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return time.process_time() - started


def engine_s(model: Any) -> float:
    """Seconds of CPU of ``fit``, its scoring of the validation chip and checkpoint included."""
    started = time.process_time()
    model.fit(EPOCHS, 1e-3)
    return time.process_time() - started


def test_training_keeps_nine_tenths_of_a_plain_loops_speed(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    chips = make_chips(tmp_path / "chips", "Classified_Tiles", chip_px=CHIP, grid=(5, 5))
    data = prepare_data(
        chips, chip_size=CHIP, batch_size=BATCH, val_split_pct=0.04, working_dir=tmp_path
    )
    assert len(data.valid_ds) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        model = UnetClassifier(data, backbone="resnet18")
    engine_s(model), plain_s(model, data)
    pairs = [(plain_s(model, data), engine_s(model)) for _ in range(TURNS)]
    plain, engine = (min(times) for times in zip(*pairs, strict=True))
    steps = EPOCHS * len(data.train_loader(model.task.train_collate))
    print(
        f"\nU-Net resnet18, {CHIP} px, batch {BATCH}, {steps} steps, 1 thread, CPU seconds: plain "
        f"loop {plain:.2f}, fit {engine:.2f} with one chip scored twice, ratio {plain / engine:.3f}"
    )
    assert plain / engine >= 0.9
