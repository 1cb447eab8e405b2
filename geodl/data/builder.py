"""What all dataset types of image chips share: from opened folders to a data object."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from geodl.base.errors import DataWarning, OptionError
from geodl.base.options import as_bool, as_float, as_int, check_choice
from geodl.core.classes import ClassTable
from geodl.core.contract import Normalization, TaskKind
from geodl.data.augment import Augmentation, augmentations
from geodl.data.batch_size import typical_batch_size
from geodl.data.chips import ChipData
from geodl.data.dataset import ChipDataset
from geodl.data.folders import (
    SourceChip,
    check_alike,
    chip_bounds,
    count_by_class,
    label_counts,
    source_chips,
    united_cell_size,
    united_classes,
    united_space,
    united_statistics,
)
from geodl.data.normalize import (
    BandStatistics,
    cached_statistics,
    compute_statistics,
    fingerprint,
    is_plain_rgb,
    sample_share,
)
from geodl.data.request import DataRequest
from geodl.data.split import Split, block_split, random_split, stratified_split
from geodl.data.store import DEFAULT_LIMIT_BYTES, ChipStore, LoadedChip
from geodl.data.targets import TargetKind
from geodl.formats import open_export
from geodl.formats.base import ChipFolder
from geodl.nets.memory import free_bytes
from geodl.nets.resize import resized_chip

logger = logging.getLogger(__name__)

DEFAULT_NORM_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class ChipLoader:
    """Reads one chip for the store: image, mask, encoded label, resized if asked. Picklable."""

    targets: TargetKind
    resize_to: tuple[int, int] | None = None

    def __call__(self, chip: SourceChip) -> LoadedChip:
        reader = chip.folder.chip_format
        image = reader.read_chip(chip.ref, chip.folder)
        shape = image.data.shape[1:]
        where = str((chip.ref.labels or (chip.ref.image,))[0])
        target = self.targets.encode(reader.read_label(chip.ref, chip.folder), shape, where)
        valid = None if image.mask.all() else image.mask
        if self.resize_to is None or self.resize_to == shape:
            return LoadedChip(image.data, valid, target)
        height, width = self.resize_to
        target = self.targets.resized(target, (height / shape[0], width / shape[1]))
        return LoadedChip(*resized_chip(image.data, valid, self.resize_to), target)


class ChipBuilder(ABC):
    """A dataset type of image chips; a further one is a subclass and a row in ``DATASETS``."""

    kind: ClassVar[TaskKind]
    keywords: ClassVar[Collection[str]]
    """Names of the further keywords of `prepare_data` that this type reads."""
    resizable: ClassVar[bool] = False
    """Whether ``resize_to`` works for it."""
    stratified: ClassVar[bool] = False
    """Whether a random split keeps the shares of classes unless the caller says otherwise."""

    @abstractmethod
    def target_kind(self, classes: ClassTable) -> TargetKind:
        """How its labels become targets."""

    def fitted(self, request: DataRequest, first: ChipFolder) -> DataRequest:
        """The request as it suits the folders, the first of which is given."""
        return request

    def build(self, request: DataRequest) -> ChipData:
        """Open the folders and put the data object together. Raises as `prepare_data` does."""
        self._check(request)
        folders = [open_export(path, request.dataset_type) for path in request.paths]
        first = check_alike(folders)
        request = self.fitted(request, first)
        chips = source_chips(folders)
        classes = united_classes(folders, request.class_mapping)
        normalization, statistics_name = self._normalization(folders, chips, request)
        side_px = item_side(first.tile_size, request)
        split_name = str(check_choice(request.options.get("split", "random"), _SPLITS, "split"))
        split = self._split(chips, classes, split_name, request)
        train_ds, valid_ds = self._datasets(chips, split, classes, normalization, side_px, request)
        return ChipData(
            path=request.paths[0],
            working_dir=request.working_dir or request.paths[0],
            dataset_type=first.metadata_mode,
            kind=self.kind,
            class_table=classes,
            bands=first.bands,
            extract_bands=tuple(range(first.bands)),
            band_names=first.band_names,
            dtype=first.dtype,
            normalization=normalization,
            statistics_name=statistics_name,
            chip_size=side_px,
            batch_size=_batch_size(request, first.bands, side_px, len(split.train)),
            seed=request.seed,
            split=split_name,
            resize_to=request.resize_to,
            image_space=united_space(folders),
            cell_size=united_cell_size(folders),
            train_ds=train_ds,
            valid_ds=valid_ds,
            count_classes=partial(count_by_class, chips, folders),
            collate_fn=request.collate_fn,
            num_workers=_workers(request),
            pixel_scale=_pixel_scale(first.tile_size, request),
        )

    def _datasets(
        self,
        chips: Sequence[SourceChip],
        split: Split,
        classes: ClassTable,
        normalization: Normalization,
        side_px: int,
        request: DataRequest,
    ) -> tuple[ChipDataset, ChipDataset]:
        targets = self.target_kind(classes)
        store = _store(chips, targets, request)
        space = united_space([chip.folder for chip in chips])

        def dataset(positions: Sequence[int], augmentation: Augmentation) -> ChipDataset:
            return ChipDataset(
                store,
                positions,
                [chips[i].key for i in positions],
                targets=targets,
                side_px=side_px,
                bands=range(normalization.bands),
                normalization=normalization,
                augmentation=augmentation,
            )

        train, valid = augmentations(request.transforms, space)
        return dataset(split.train, train), dataset(split.valid, valid)

    def _check(self, request: DataRequest) -> None:
        if request.resize_to is not None and not self.resizable:
            raise OptionError(
                f"resize_to works for PASCAL_VOC_rectangles, Labeled_Tiles, superres and "
                f"Imagenet; this data set is {request.dataset_type}. Leave it out, and choose "
                "chip_size, or the tile size and cell size of the export."
            )

    def _normalization(
        self,
        folders: Sequence[ChipFolder],
        chips: Sequence[SourceChip],
        request: DataRequest,
    ) -> tuple[Normalization, str]:
        first, statistics = folders[0], united_statistics(folders)
        if is_plain_rgb(first.bands, first.dtype, first.band_names, statistics):
            return Normalization.imagenet(), "ImageNet statistics"
        if statistics is not None:
            return statistics.normalization(), "the export's statistics"
        share = as_float(
            request.options.get("norm_pct", DEFAULT_NORM_SHARE), "norm_pct", minimum=0, maximum=1
        )
        positions = sample_share([chip.key for chip in chips], share, request.seed)

        def compute() -> BandStatistics:
            read = (chips[i] for i in positions)
            images = (chip.folder.chip_format.read_chip(chip.ref, chip.folder) for chip in read)
            pixels = ((image.data, image.mask) for image in images)
            return compute_statistics(pixels, first.bands, str(first.path))

        identity = fingerprint(_file_facts(chips[i]) for i in positions)
        found = cached_statistics(request.working_dir, share, identity, compute)
        return found.normalization(), f"statistics of {len(positions)} chips"

    def _split(
        self, chips: Sequence[SourceChip], classes: ClassTable, name: str, request: DataRequest
    ) -> Split:
        keys, seed, share = [chip.key for chip in chips], request.seed, request.val_split_pct
        usual = self.stratified and name == "random"
        stratify = as_bool(request.options.get("stratify", usual), "stratify")
        if name == "random" and not stratify:
            return random_split(keys, share, seed)
        if name == "random":
            present = np.zeros((len(chips), len(classes)), bool)
            for row, chip in zip(present, chips, strict=True):
                row[:] = np.isin(classes.values, list(label_counts(chip)))
            return stratified_split(keys, present, share, seed)
        if stratify:
            raise OptionError("split='block' and stratify=True exclude each other; choose one.")
        split = block_split(keys, chip_positions(chips), share, seed)
        if split.dropped:
            logger.info(
                "%d chips overlap a validation chip and are left out of training.",
                len(split.dropped),
            )
        return split


_SPLITS = ("random", "block")


def _store(chips: Sequence[SourceChip], targets: TargetKind, request: DataRequest) -> ChipStore:
    limit = min(DEFAULT_LIMIT_BYTES, free_bytes(torch.device("cpu")) // 4)
    # Each worker process keeps chips of its own.
    return ChipStore(
        chips, ChipLoader(targets, request.resize_to), limit // max(1, _workers(request))
    )


def _file_facts(chip: SourceChip) -> tuple[str, int, int]:
    facts = chip.ref.image.stat()
    return chip.key, facts.st_size, facts.st_mtime_ns


def chip_positions(chips: Sequence[SourceChip]) -> np.ndarray:
    """Bounds of chips, or their order where they have no position: chips are written by rows."""
    bounds = chip_bounds(chips)
    if bounds is not None:
        return bounds
    warnings.warn(
        f"The chips of {chips[0].folder.path} have no position (world file or georeference); "
        "split='block' takes neighbours by their numbers and cannot tell which overlap.",
        DataWarning,
        stacklevel=5,
    )
    left = np.arange(len(chips), dtype=np.float64)
    return np.column_stack([left, np.zeros_like(left), left + 1, np.ones_like(left)])


def item_side(tile_size: tuple[int, int], request: DataRequest) -> int:
    """Side of the items: ``chip_size``, or the shorter side of chips that are smaller.

    Parameters
    ----------
    tile_size
        Width and height of the chips; ``resize_to`` goes before it.
    """
    shorter = min(request.resize_to or tile_size)
    if request.transforms is False:
        if len(set(request.resize_to or tile_size)) > 1:
            warnings.warn(
                f"Chips of {tile_size[0]} x {tile_size[1]} pixels are cut to their middle "
                f"{shorter} x {shorter}: networks train on squares.",
                DataWarning,
                stacklevel=4,
            )
        return shorter
    return min(request.chip_size, shorter)


def _pixel_scale(tile_size: tuple[int, int], request: DataRequest) -> float:
    """How much ``resize_to`` enlarges a chip; the mean of both axes where they differ."""
    if request.resize_to is None:
        return 1.0
    height, width = request.resize_to
    return (height / tile_size[1] + width / tile_size[0]) / 2


def _batch_size(request: DataRequest, bands: int, side_px: int, train_chips: int) -> int:
    asked = request.batch_size or typical_batch_size(bands, side_px)
    if asked > train_chips:
        logger.info("The batch of %d is cut to the %d training chips.", asked, train_chips)
    return min(asked, train_chips)


def _workers(request: DataRequest) -> int:
    return as_int(request.options.get("num_workers", 0), "num_workers", minimum=0)
