"""ChangeDetection: two images of the same ground, and where it has changed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from geodl.base.errors import FormatError, OptionError
from geodl.base.options import check_choice
from geodl.core.classes import ClassEntry, ClassTable
from geodl.data.batch_size import typical_batch_size
from geodl.data.builder import item_side
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.paired import (
    PairedSample,
    StackLoader,
    check_mergeable,
    paired_samples,
    parted_sets,
    set_normalization,
    split_samples,
    united_table,
)
from geodl.data.paired_data import PairedData, image_facts
from geodl.data.request import DataRequest
from geodl.data.sample_data import common_fields, refuse_arguments
from geodl.data.split import Split
from geodl.data.targets import MaskTargets
from geodl.formats.base import MaskLabels
from geodl.formats.image_sets import find_folder
from geodl.formats.images import read_class_raster
from geodl.formats.paired import PairedLayout, change_layout

CHANGE = 1


def read_change(path: Path) -> MaskLabels:
    """The label raster with every value but 0 as change. Raises FormatError, which names it."""
    return MaskLabels((read_class_raster(path) != 0).astype(np.uint8))


class ChangeDetection:
    """Pairs of images with a change mask.

    Items: ``image`` (before) and ``image_b`` (after), float32 (C, side, side), normalised by
    ``normalization`` and ``normalization_b``; ``target`` int64 (side, side): 0 no change, 1
    change, ``IGNORE_INDEX`` where one of the images has no data; ``name``.

    ``kind`` is ``change``; the only class is value 1, by the name that the export or
    ``class_mapping`` gives it. Own transforms get the bands of both images as one ``image``,
    before first. ``split="folder"`` takes the sub-folders ``train`` and ``val`` as they are.
    """

    keywords = CHIP_KEYWORDS
    kind: ClassVar[str] = "change"

    def build(self, request: DataRequest) -> PairedData:
        """Open the folders and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request, mapping=False)
        samples, split, split_name = _samples(request)
        layouts = list({id(s.layout): s.layout for s in samples}.values())
        check_mergeable(layouts)
        first = layouts[0]
        table = _table(layouts, request)
        before, source = set_normalization(samples, 0, request)
        after, _ = set_normalization(samples, 1, request)
        side = item_side(first.sets[0].size, request)
        train, valid = parted_sets(
            samples,
            split,
            StackLoader(MaskTargets(table), read_change),
            side_px=side,
            parts=(before, after),
            request=request,
            image_space=first.image_space,
            moves_only=False,
        )
        return PairedData(
            **common_fields(request, train, valid, typical_batch_size(2 * before.bands, side)),
            **image_facts(first, ("before", "after"), (before, after)),
            kind=self.kind,
            class_table=table,
            split=split_name,
            unit="pixels",
            count_classes=partial(_count, samples),
            statistics_name=source,
            chip_size=side,
        )


def _samples(request: DataRequest) -> tuple[list[PairedSample], Split, str]:
    choice = check_choice(
        request.options.get("split", "random"), ("random", "block", "folder"), "split"
    )
    if choice == "folder":
        return _split_folders(request)
    for path in request.paths:
        if find_folder(path, "images", "images_before") is None and find_folder(path, "train"):
            raise FormatError(
                f"{path} holds 'train' instead of 'images'; a folder that is split already needs "
                "split='folder'."
            )
    samples = paired_samples([change_layout(path) for path in request.paths], labelled=True)
    return samples, *split_samples(samples, request)


def _split_folders(request: DataRequest) -> tuple[list[PairedSample], Split, str]:
    parts = []
    for name in ("train", "val"):
        folders = [find_folder(path, name) for path in request.paths]
        for path, folder in zip(request.paths, folders, strict=True):
            if folder is None:
                raise FormatError(
                    f"split='folder' needs the sub-folders 'train' and 'val'; {path} has no "
                    f"{name!r}."
                )
        layouts = [change_layout(folder) for folder in folders if folder is not None]
        parts.append(paired_samples(layouts, labelled=True))
    train, valid = parts
    samples = [
        PairedSample(f"{name}/{s.key}", s.layout, s.name)
        for name, part in (("train", train), ("val", valid))
        for s in part
    ]
    border = len(train)
    split = Split(tuple(range(border)), tuple(range(border, len(samples))))
    return samples, split, "folder"


def _table(layouts: list[PairedLayout], request: DataRequest) -> ClassTable:
    """One class, change: by the caller's name, the export's if it has one class, or our own."""
    strange = sorted(value for value in request.class_mapping if value not in (0, CHANGE))
    if strange:
        raise OptionError(
            f"class_mapping names the value {strange[0]}; change labels are 0 and 1 "
            "(every value but 0 is change). Give {1: name}."
        )
    known = united_table(layouts)
    only = next(iter(known)) if known is not None and len(known) == 1 else None
    own = ClassTable.from_mapping({CHANGE: "Change"}).entries[0]
    entry = ClassEntry(
        value=CHANGE,
        name=request.class_mapping.get(CHANGE, only.name if only else own.name),
        color=only.color if only else own.color,
    )
    return ClassTable((entry,))


def _count(samples: list[PairedSample]) -> dict[int, int]:
    pixels = (read_change(sample.layout.labels[sample.name]).values for sample in samples)
    return {CHANGE: int(sum(int(values.sum(dtype=np.int64)) for values in pixels))}
