"""Samples of several images over the same ground: read together, cut and moved together.

The images of a sample become one stack of bands, so that every crop, turn and flip reaches all of
them alike; an item takes the stack apart again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from geodl.base.errors import DataError, DataWarning, FormatError
from geodl.base.options import as_float, as_int, check_choice
from geodl.core.classes import ClassTable
from geodl.core.contract import Normalization
from geodl.core.grid import Window
from geodl.data.augment import Augmentation, augmentations, default_moves
from geodl.data.builder import DEFAULT_NORM_SHARE, chip_positions
from geodl.data.dataset import ChipDataset
from geodl.data.folders import SourceChip
from geodl.data.normalize import (
    BandStatistics,
    cached_statistics,
    compute_statistics,
    fingerprint,
    is_plain_rgb,
    merge_statistics,
    sample_share,
)
from geodl.data.request import DataRequest
from geodl.data.split import Split, block_split, random_split
from geodl.data.store import DEFAULT_LIMIT_BYTES, ChipStore, LoadedChip
from geodl.data.targets import TargetKind
from geodl.formats.base import ChipRef
from geodl.formats.image_sets import ImageSet
from geodl.formats.images import read_image
from geodl.formats.paired import PairedLayout
from geodl.nets.memory import free_bytes
from geodl.nets.resize import resized_chip

# What the images of an item are called, in the order of the layout's sets.
IMAGE_KEYS = ("image", "image_b", "image_c")


class ValidPixels:
    """For samples whose images are all there is to learn from: where all of them have data."""

    def encode(self, label: Any, shape_yx: tuple[int, int], where: str) -> tuple[()]:
        return ()

    def resized(self, encoded: Any, scale_yx: tuple[float, float]) -> Any:
        return encoded

    def cut(self, encoded: Any, window: Window, side_px: int, visible: float) -> dict[str, Any]:
        return {}

    def target(self, sample: dict[str, Any], valid: Tensor | None) -> Tensor:
        if valid is None:
            return torch.ones(sample["image"].shape[-2:], dtype=torch.bool)
        return valid.contiguous()


@dataclass(frozen=True, slots=True)
class PairedSample:
    """One sample on disk: its images in the order of the sets, and its label or None."""

    key: str
    layout: PairedLayout
    name: str

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(images.files[self.name] for images in self.layout.sets)

    def as_source_chip(self, dataset_type: str) -> SourceChip:
        """In the form that the split by position takes."""
        ref = ChipRef(self.name, self.files[0], ())
        return SourceChip(self.key, ref, self.layout.as_folder(dataset_type))


@dataclass(frozen=True, slots=True)
class StackLoader:
    """Reads a sample: images of one size stacked by bands, and the encoded label. Picklable.

    Parameters
    ----------
    targets
        How labels become targets.
    read_label
        From a file to what ``targets.encode`` takes.
    factor
        Super-resolution from two sets: side of the second image per side of the first, which is
        cut to its middle square and repeated to the second's size. 1: images of one size.
    resize_to
        (height, width) that images are resized to, or None; for samples without labels.
    any_size
        Whether images of one set may differ in size.
    """

    targets: TargetKind
    read_label: Callable[[Path], Any] | None = None
    factor: int = 1
    resize_to: tuple[int, int] | None = None
    any_size: bool = False

    def __call__(self, sample: PairedSample) -> LoadedChip:
        images = [read_image(path) for path in sample.files]
        for images_of, path, image in zip(sample.layout.sets, sample.files, images, strict=True):
            _check_shape(path, image.data.shape, images_of, self.any_size)
        data, masks = [image.data for image in images], [image.mask for image in images]
        if self.factor > 1:
            data[0], masks[0] = _repeated(data[0], self.factor), _repeated(masks[0], self.factor)
            data, masks = (
                [_square(d, self.factor) for d in data],
                [_square(m, self.factor) for m in masks],
            )
        mask = np.logical_and.reduce(masks)
        stacked = data[0] if len(data) == 1 else np.concatenate(data)
        valid = None if mask.all() else mask
        if self.resize_to is not None and self.resize_to != mask.shape:
            stacked, valid = resized_chip(stacked, valid, self.resize_to)
        return LoadedChip(stacked, valid, self._target(sample, stacked.shape[1:]))

    def _target(self, sample: PairedSample, shape_yx: tuple[int, int]) -> Any:
        if self.read_label is None:
            return ()
        path = sample.layout.labels[sample.name]
        return self.targets.encode(self.read_label(path), shape_yx, str(path))


def _repeated(image: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel of (..., H, W) as factor x factor equal ones."""
    return np.asarray(image.repeat(factor, axis=-2).repeat(factor, axis=-1))


def _square(image: np.ndarray, step: int) -> np.ndarray:
    """The middle square of (..., H, W), cut at multiples of ``step``."""
    height, width = image.shape[-2:]
    side = min(height, width)
    row, col = ((spare // step // 2) * step for spare in (height - side, width - side))
    return image[..., row : row + side, col : col + side]


def _check_shape(path: Path, shape: tuple[int, ...], images: ImageSet, any_size: bool) -> None:
    bands, height, width = shape
    if bands != images.bands or ((width, height) != images.size and not any_size):
        raise FormatError(
            f"{path} has {bands} bands of {width} x {height} pixels; the first chip of "
            f"{images.folder} has {images.bands} of {images.size[0]} x {images.size[1]}. "
            "Remove the chip or export it again."
        )


class PartedDataset(Dataset[dict[str, Any]]):
    """A stacked set taken apart: ``image``, ``image_b``, ``image_c``, ``target``, ``name``.

    Where there are no labels ``valid``, bool (H, W), True where all images have data, is there
    instead of ``target``.

    Parameters
    ----------
    stacked
        Items whose ``image`` has the bands of all images.
    bands
        Of each image.
    finish
        Changes an item that has been taken apart; None leaves it.
    """

    def __init__(
        self,
        stacked: ChipDataset,
        bands: Sequence[int],
        finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.stacked = stacked
        self.bands = list(bands)
        self.finish = finish

    def __len__(self) -> int:
        return len(self.stacked)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        whole = self.stacked[index]
        parts = torch.split(whole["image"], self.bands)
        item: dict[str, Any] = {
            key: part.contiguous() for key, part in zip(IMAGE_KEYS, parts, strict=False)
        }
        labelled = not isinstance(self.stacked.targets, ValidPixels)
        item["target" if labelled else "valid"] = whole["target"]
        item["name"] = whole["name"]
        return item if self.finish is None else self.finish(item)


def paired_samples(layouts: Sequence[PairedLayout], *, labelled: bool) -> list[PairedSample]:
    """The samples of all layouts; those without a label are left out with a warning.

    Raises
    ------
    DataError
        None is left.
    """
    samples = []
    for number, layout in enumerate(layouts):
        prefix = f"{number}/" if len(layouts) > 1 else ""
        names = [n for n in layout.names if not labelled or n in layout.labels]
        missing = len(layout.names) - len(names)
        if missing:
            example = next(n for n in layout.names if n not in layout.labels)
            warnings.warn(
                f"{missing} of {len(layout.names)} chips of {layout.path} have no label file "
                f"({example}, for one) and are left out.",
                DataWarning,
                stacklevel=4,
            )
        samples += [PairedSample(prefix + name, layout, name) for name in sorted(names)]
    if not samples:
        raise DataError(f"No chip of {layouts[0].path} has a label file; export the labels too.")
    return samples


def check_mergeable(layouts: Sequence[PairedLayout]) -> None:
    """Hold the sets of several folders to the same bands, dtypes and sizes. Raises DataError."""
    first = layouts[0]
    for other in layouts[1:]:
        ours = [(s.bands, s.dtype, s.size) for s in first.sets]
        theirs = [(s.bands, s.dtype, s.size) for s in other.sets]
        if ours != theirs:
            raise DataError(
                f"The folders cannot be merged: {other.path} has images of (bands, dtype, size) "
                f"{theirs}, {first.path} {ours}. Export them alike, or train on one of them."
            )


def set_normalization(
    samples: Sequence[PairedSample], position: int, request: DataRequest, *, plain: bool = True
) -> tuple[Normalization, str]:
    """The statistics of one role's images, and where they come from.

    Parameters
    ----------
    position
        Of the set in the layouts.
    plain
        Whether 8-bit RGB takes the ImageNet statistics.
    """
    layouts = list({id(s.layout): s.layout for s in samples}.values())
    sets = [layout.sets[position] for layout in layouts]
    statistics = _merged([one.stats for one in sets], [len(one.files) for one in sets])
    first = sets[0]
    if plain and is_plain_rgb(first.bands, first.dtype, first.band_names, statistics):
        return Normalization.imagenet(), "ImageNet statistics"
    if statistics is not None:
        return statistics.normalization(), "the export's statistics"
    share = as_float(
        request.options.get("norm_pct", DEFAULT_NORM_SHARE), "norm_pct", minimum=0, maximum=1
    )
    positions = sample_share([sample.key for sample in samples], share, request.seed)
    files = [samples[i].files[position] for i in positions]

    def compute() -> BandStatistics:
        images = (read_image(path) for path in files)
        return compute_statistics(
            ((image.data, image.mask) for image in images), first.bands, str(first.folder)
        )

    facts = [(samples[i].key, path.stat()) for i, path in zip(positions, files, strict=True)]
    identity = fingerprint((key, stat.st_size, stat.st_mtime_ns) for key, stat in facts)
    folder = request.working_dir
    if folder is not None and position:
        folder = folder / first.folder.name
    found = cached_statistics(folder, share, identity, compute)
    return found.normalization(), f"statistics of {len(positions)} chips"


def _merged(all_stats: Sequence[Any], counts: Sequence[int]) -> BandStatistics | None:
    parts = []
    for stats, count in zip(all_stats, counts, strict=True):
        if stats is None:
            return None
        rows = zip(*((s.minimum, s.maximum, s.mean, s.std) for s in stats), strict=True)
        low, high, mean, std = (tuple(map(float, row)) for row in rows)
        parts.append((BandStatistics(minimum=low, maximum=high, mean=mean, std=std), count))
    if not all(statistics.finite() for statistics, _ in parts):
        return None
    return parts[0][0] if len(parts) == 1 else merge_statistics(parts)


def joined(parts: Sequence[Normalization]) -> Normalization:
    """The statistics of stacked bands."""
    return Normalization(
        minimum=sum((p.minimum for p in parts), ()),
        maximum=sum((p.maximum for p in parts), ()),
        scaled_mean=sum((p.scaled_mean for p in parts), ()),
        scaled_std=sum((p.scaled_std for p in parts), ()),
    )


def loader_limit(request: DataRequest) -> int:
    """Most bytes of decoded samples that one process keeps."""
    workers = as_int(request.options.get("num_workers", 0), "num_workers", minimum=0)
    limit = min(DEFAULT_LIMIT_BYTES, free_bytes(torch.device("cpu")) // 4)
    return limit // max(1, workers)


def parted_sets(
    samples: Sequence[PairedSample],
    split: Split,
    loader: StackLoader,
    *,
    side_px: int,
    parts: Sequence[Normalization],
    request: DataRequest,
    image_space: str,
    moves_only: bool = True,
    finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> tuple[PartedDataset, PartedDataset]:
    """Training and validation items of the samples.

    Parameters
    ----------
    parts
        Statistics of each image of a sample.
    moves_only
        The default augmentation is flips and turns only: an image that is to be predicted must
        keep its light and its pixels.
    """
    store = ChipStore(samples, loader, loader_limit(request))
    stacked = joined(parts)
    train, valid = augmentations(request.transforms, image_space)
    if moves_only and train.transform is not None and not train.scaled:
        train = Augmentation("centre", transform=v2.Compose(default_moves(image_space)))
    make = partial(
        _stacked_set, store, samples, loader.targets, side_px=side_px, normalization=stacked
    )
    bands = [part.bands for part in parts]
    return (
        PartedDataset(make(split.train, train), bands, finish),
        PartedDataset(make(split.valid, valid), bands, finish),
    )


def _stacked_set(
    store: ChipStore,
    samples: Sequence[PairedSample],
    targets: TargetKind,
    positions: Sequence[int],
    augmentation: Augmentation,
    *,
    side_px: int,
    normalization: Normalization,
) -> ChipDataset:
    return ChipDataset(
        store,
        positions,
        [samples[i].key for i in positions],
        targets=targets,
        side_px=side_px,
        bands=range(normalization.bands),
        normalization=normalization,
        augmentation=augmentation,
    )


def united_table(layouts: Sequence[PairedLayout]) -> ClassTable | None:
    """The classes of the first layout that lists any."""
    return next((layout.classes for layout in layouts if layout.classes is not None), None)


def split_samples(samples: Sequence[PairedSample], request: DataRequest) -> tuple[Split, str]:
    """Which samples validate, and the name of the split."""
    name = str(check_choice(request.options.get("split", "random"), ("random", "block"), "split"))
    keys = [sample.key for sample in samples]
    if name == "random":
        return random_split(keys, request.val_split_pct, request.seed), name
    chips = [sample.as_source_chip(request.dataset_type) for sample in samples]
    return block_split(keys, chip_positions(chips), request.val_split_pct, request.seed), name


def whole_side(size: tuple[int, int], dataset_type: str) -> int:
    """Side of items that are whole chips: ``chip_size`` does not count for the type."""
    shorter = min(size)
    if max(size) > shorter:
        warnings.warn(
            f"Chips of {size[0]} x {size[1]} pixels are cut to their middle {shorter} x {shorter}: "
            f"networks for {dataset_type} train on squares.",
            DataWarning,
            stacklevel=4,
        )
    return shorter
