"""The torch data sets: from a decoded chip to a normalised, augmented item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors

from geodl.base.errors import OptionError
from geodl.core.contract import Normalization
from geodl.core.grid import Window
from geodl.data.augment import ZOOM_SHARE, Augmentation
from geodl.data.store import ChipStore, LoadedChip
from geodl.data.targets import TargetKind, nearest_index
from geodl.nets.resize import resize_image

# Least part of an object that a random crop must leave for it to count as one: slivers teach the
# detector to see objects in fragments.
LEAST_VISIBLE = 0.1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global CPU generator from ``seed``, put back afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


class SeededItems(Dataset[dict[str, Any]], ABC):
    """Items by number, or by (number, seed) with all that is drawn following from the seed."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        if isinstance(index, tuple):
            with seeded(index[1]):
                return self._item(index[0])
        return self._item(int(index))

    @abstractmethod
    def _item(self, index: int) -> dict[str, Any]:
        """The item; what is drawn comes from torch's global generator."""


class ChipDataset(SeededItems):
    """Chips of one set as items ``{"image", "target", "name"}``.

    ``image`` is float32 (C, side, side), normalised and contiguous; ``target`` is that of the
    target kind; ``name`` the chip's. Indexed by position, or by (position, seed): with a seed the
    item's augmentation is a function of it, without one it draws from torch's global generator.

    Parameters
    ----------
    store
        Decoded chips, shared with the other set.
    positions
        Of this set's chips in the store.
    names
        One per position.
    targets
        How labels become targets.
    side_px
        Of the square items.
    bands
        0-based bands of the chips that the network takes, in its order.
    normalization
        For these bands.
    augmentation
        What is drawn anew each time.
    """

    def __init__(
        self,
        store: ChipStore,
        positions: Sequence[int],
        names: Sequence[str],
        *,
        targets: TargetKind,
        side_px: int,
        bands: Sequence[int],
        normalization: Normalization,
        augmentation: Augmentation,
    ) -> None:
        self.store = store
        self.positions = tuple(positions)
        self.names = tuple(names)
        self.targets = targets
        self.side_px = side_px
        self.bands = tuple(bands)
        self.normalization = normalization
        self.augmentation = augmentation
        _, offset = normalization.scale_offset()
        # What raw 0 becomes: the value of pixels without data, in training and in inference.
        self._empty = torch.from_numpy(offset)
        self._mean = torch.tensor(normalization.scaled_mean).view(-1, 1, 1)
        self._std = torch.tensor(normalization.scaled_std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.positions)

    def _item(self, index: int) -> dict[str, Any]:
        chip = self.store[self.positions[index]]
        window = self._window(*chip.data.shape[1:])
        sample, any_empty = self._cut(chip, window)
        sample = self._transformed(sample, self.names[index])
        valid = sample["valid"].as_subclass(Tensor).bool() if "valid" in sample else None
        image = sample["image"].as_subclass(Tensor)
        if valid is not None and any_empty:
            image = torch.where(valid, image, self._empty)
        return {
            "image": image.contiguous(),
            "target": self.targets.target(sample, valid),
            "name": self.names[index],
        }

    # -- the window ---------------------------------------------------------------------------

    def _window(self, height: int, width: int) -> Window:
        """The ground of the item; it leaves a smaller chip at the right and below."""
        side = self._side(min(height, width))
        row = self._start(height - side)
        col = self._start(width - side)
        return Window(row=row, col=col, height=side, width=side)

    def _side(self, largest: int) -> int:
        low, high = self.augmentation.zoom
        if low == high == 1.0 or float(torch.rand(())) >= ZOOM_SHARE:
            return self.side_px
        factor = low + (high - low) * float(torch.rand(()))
        side = max(1, round(self.side_px * factor))
        return min(side, largest) if largest >= self.side_px else self.side_px

    def _start(self, spare: int) -> int:
        if spare <= 0:
            return 0
        if self.augmentation.crop == "centre":
            return spare // 2
        return int(torch.randint(spare + 1, ()))

    # -- the sample ---------------------------------------------------------------------------

    def _cut(self, chip: LoadedChip, window: Window) -> tuple[dict[str, Any], bool]:
        """The window as tv_tensors of the item's size, and whether a pixel of it may be empty."""
        data, valid = _read_window(chip, window, self.bands)
        image = torch.from_numpy(self.normalization.apply(data, valid))
        if window.height != self.side_px:
            image = resize_image(image, (self.side_px, self.side_px))
        sample: dict[str, Any] = {"image": tv_tensors.Image(image)}
        own = self.augmentation.scaled  # a stranger's transform may turn in empty corners
        any_empty = valid is not None or own
        if any_empty:
            sample["valid"] = tv_tensors.Mask(self._valid(valid, window))
        visible = LEAST_VISIBLE if self.augmentation.crop == "random" else 0.0
        sample |= self.targets.cut(chip.target, window, self.side_px, visible)
        return sample, any_empty

    def _valid(self, valid: np.ndarray | None, window: Window) -> Tensor:
        if valid is None:
            return torch.ones(self.side_px, self.side_px, dtype=torch.bool)
        index = nearest_index(0, window.height, self.side_px, window.height)
        return torch.from_numpy(valid[np.ix_(index, index)])

    def _transformed(self, sample: dict[str, Any], name: str) -> dict[str, Any]:
        transform = self.augmentation.transform
        if transform is None:
            return sample
        if not self.augmentation.scaled:
            return transform(sample)
        image = sample["image"].as_subclass(Tensor)
        sample["image"] = tv_tensors.Image(image * self._std + self._mean)
        sample = self._checked(transform(sample), name)
        image = sample["image"].as_subclass(Tensor)
        sample["image"] = tv_tensors.Image((image - self._mean) / self._std)
        return sample

    def _checked(self, sample: Any, name: str) -> dict[str, Any]:
        """What the caller's own transform made, brought back to what targets expect."""
        image = sample.get("image") if isinstance(sample, dict) else None
        shape = (len(self.bands), self.side_px, self.side_px)
        if not isinstance(image, Tensor) or image.shape != shape or not image.is_floating_point():
            came = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else "none"
            raise OptionError(
                f"transforms gave {came} for the image of chip {name}; expected a dict whose "
                f"'image' is a float tensor of shape {shape}, as it came in. Use transforms of "
                "torchvision.transforms.v2, which take the dict, and keep the size with Resize."
            )
        return self._sane_boxes(sample)

    def _sane_boxes(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Boxes that a turn or crop has pushed out of the image do not count."""
        boxes = sample.get("boxes")
        if boxes is None:
            return sample
        clipped = boxes.as_subclass(Tensor).float().clamp(0, self.side_px)
        keep = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
        return sample | {"boxes": clipped[keep], "labels": sample["labels"][keep]}


def _read_window(
    chip: LoadedChip, window: Window, bands: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Raw pixels (C, h, w) and their mask; zeros, masked out, beyond the chip. A view if it can."""
    count, height, width = chip.data.shape
    rows = slice(window.row, min(window.row_stop, height))
    cols = slice(window.col, min(window.col_stop, width))
    data = chip.data[:, rows, cols]
    if bands != tuple(range(count)):
        data = data[list(bands)]
    valid = None if chip.valid is None else chip.valid[rows, cols]
    if data.shape[1:] != (window.height, window.width):
        below, right = window.height - data.shape[1], window.width - data.shape[2]
        inside = np.ones(data.shape[1:], bool) if valid is None else valid
        data = np.pad(data, ((0, 0), (0, below), (0, right)))
        valid = np.pad(inside, ((0, below), (0, right)))
    elif valid is not None and valid.all():
        valid = None
    return data, valid


class SeededSampler(Sampler[tuple[int, int]]):
    """Each position once per epoch, in random order, with a seed for its augmentation.

    The seeds make an epoch a function of the generator alone: the same for any number of worker
    processes.
    """

    def __init__(self, length: int, generator: torch.Generator) -> None:
        self.length = length
        self.generator = generator

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.randperm(self.length, generator=self.generator)
        seeds = torch.randint(2**62, (self.length,), generator=self.generator)
        return iter(list(zip(order.tolist(), seeds.tolist(), strict=True)))
