"""Images that become other images: Pix2Pix, WNet_cGAN and CycleGAN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from geodl.base.errors import NotSupportedError
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.data.batch_size import typical_batch_size
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.paired import (
    PartedDataset,
    StackLoader,
    ValidPixels,
    check_mergeable,
    paired_samples,
    parted_sets,
    set_normalization,
    split_samples,
    united_table,
    whole_side,
)
from geodl.data.paired_data import PairedData, image_facts
from geodl.data.request import DataRequest
from geodl.data.sample_data import common_fields, named, one_folder, refuse_arguments
from geodl.data.targets import MaskTargets
from geodl.formats.base import MaskLabels
from geodl.formats.images import read_class_raster
from geodl.formats.paired import PairedLayout, cyclegan_layouts, pix2pix_layout, wnet_layout


class Pix2Pix:
    """Paired images of two domains.

    Items: ``image`` (A) and ``image_b`` (B), float32 (C, side, side) and (C_b, side, side),
    normalised by ``normalization`` and ``normalization_b``; ``valid`` bool (side, side), True
    where both have data; ``name``. The side is the chips' own.

    Where ``labels`` takes the place of A (classes to images), ``image`` is float32
    (K + 1, side, side), one-hot with background first and all 0 where B has no data, ``classes``
    names the K classes, and ``normalization`` is None.

    ``kind`` is ``translation``. The default augmentation flips and turns both images alike.
    """

    keywords = CHIP_KEYWORDS
    kind: ClassVar[str] = "translation"

    def build(self, request: DataRequest) -> PairedData:
        """Open the folders and put the data object together. Raises as `prepare_data` does."""
        layouts = [pix2pix_layout(path) for path in request.paths]
        check_mergeable(layouts)
        labelled = [bool(layout.labels) for layout in layouts]
        if len(set(labelled)) > 1:
            raise NotSupportedError(
                "Folders with 'labels' and with 'images2' cannot be merged; train on one kind."
            )
        if labelled[0]:
            return _labels_to_images(layouts, request)
        return stacked_data(layouts, request, ("A", "B"), self.kind)


class WNetCGan:
    """Triplets: two inputs A and C, and the target B.

    Items: ``image`` (A), ``image_b`` (B) and ``image_c`` (C), float32 (C, side, side) each,
    normalised by ``normalization``, ``normalization_b`` and ``normalization_c``; ``valid`` bool
    (side, side), True where all have data; ``name``. The side is the chips' own.

    ``kind`` is ``translation``. The default augmentation flips and turns all images alike.
    """

    keywords = CHIP_KEYWORDS
    kind: ClassVar[str] = "translation"

    def build(self, request: DataRequest) -> PairedData:
        """Open the folders and put the data object together. Raises as `prepare_data` does."""
        layouts = [wnet_layout(path) for path in request.paths]
        check_mergeable(layouts)
        return stacked_data(layouts, request, ("A", "B", "C"), self.kind)


def stacked_data(
    layouts: Sequence[PairedLayout], request: DataRequest, titles: tuple[str, ...], kind: str
) -> PairedData:
    """The data object of samples with one image per title and no labels."""
    refuse_arguments(request)
    samples = paired_samples(layouts, labelled=False)
    split, split_name = split_samples(samples, request)
    found = [set_normalization(samples, i, request) for i in range(len(titles))]
    parts = [normalization for normalization, _ in found]
    first = layouts[0]
    side = whole_side(first.sets[0].size, request.dataset_type)
    train, valid = parted_sets(
        samples,
        split,
        StackLoader(ValidPixels()),
        side_px=side,
        parts=parts,
        request=request,
        image_space=first.image_space,
    )
    bands = sum(part.bands for part in parts)
    return PairedData(
        **common_fields(request, train, valid, typical_batch_size(bands, side)),
        **image_facts(first, titles, parts),
        kind=kind,
        class_table=ClassTable(()),
        split=split_name,
        statistics_name=", ".join(dict.fromkeys(name for _, name in found)),
        chip_size=side,
    )


# -- classes to images ------------------------------------------------------------------------


def _read_classes(path: Any) -> MaskLabels:
    return MaskLabels(read_class_raster(path))


class OneHot:
    """The label of an item as its ``image``, one channel per class, background first."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        target = item["target"]
        valid = target != IGNORE_INDEX
        hot = functional.one_hot(target.clamp(min=0), self.classes + 1).permute(2, 0, 1)
        return {
            "image": (hot * valid).float().contiguous(),
            "image_b": item["image"],
            "valid": valid,
            "name": item["name"],
        }


def _labels_to_images(layouts: Sequence[PairedLayout], request: DataRequest) -> PairedData:
    refuse_arguments(request, mapping=False)
    samples = paired_samples(layouts, labelled=True)
    table = _label_table(layouts, request)
    split, split_name = split_samples(samples, request)
    normalization, source = set_normalization(samples, 0, request)
    first = layouts[0]
    side = whole_side(first.sets[0].size, request.dataset_type)
    train, valid = parted_sets(
        samples,
        split,
        StackLoader(MaskTargets(table), _read_classes),
        side_px=side,
        parts=(normalization,),
        request=request,
        image_space=first.image_space,
        finish=OneHot(len(table)),
    )
    batch = typical_batch_size(normalization.bands + len(table) + 1, side)
    facts = image_facts(first, ("classes", "B"), ())
    facts |= {
        "all_bands": (len(table) + 1, normalization.bands),
        "all_names": (("Background", *table.names), first.sets[0].band_names),
        "all_dtypes": ("uint8", first.sets[0].dtype),
    }
    return PairedData(
        **common_fields(request, train, valid, batch),
        **facts,
        kind=Pix2Pix.kind,
        class_table=table,
        split=split_name,
        unit="chips",
        normalization=None,
        normalization_b=normalization,
        statistics_name=source,
        chip_size=side,
    )


def _label_table(layouts: Sequence[PairedLayout], request: DataRequest) -> ClassTable:
    """The export's classes; an export that lists none has those of its pixels."""
    known = united_table(layouts)
    if known is None or not len(known):
        files = (path for layout in layouts for path in layout.labels.values())
        found: set[int] = set()
        for path in files:
            found.update(np.unique(read_class_raster(path)).tolist())
        known = ClassTable.from_mapping({value: str(value) for value in sorted(found)})
    return named(known, request)


# -- unpaired ---------------------------------------------------------------------------------


class UnpairedDataset(Dataset[dict[str, Any]]):
    """Images of two sets that have nothing to do with each other.

    As long as the larger set; each item is the next image of A with one of B: drawn by chance, or
    the next one.
    """

    def __init__(self, first: PartedDataset, second: PartedDataset, *, draws: bool) -> None:
        self.first, self.second, self.draws = first, second, draws

    def __len__(self) -> int:
        return max(len(self.first), len(self.second))

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        position, seed = index if isinstance(index, tuple) else (int(index), None)
        if not -len(self) <= position < len(self):
            raise IndexError(f"item {position} of {len(self)}")
        other = self._partner(position, seed)
        mine = position % len(self.first)
        a = self.first[mine if seed is None else (mine, seed)]
        # Another seed, or both images would always be turned the same way.
        b = self.second[other if seed is None else (other, seed ^ 1)]
        return {
            "image": a["image"],
            "image_b": b["image"],
            "valid": a["valid"],
            "valid_b": b["valid"],
            "name": a["name"],
            "name_b": b["name"],
        }

    def _partner(self, position: int, seed: int | None) -> int:
        if not self.draws:
            return position % len(self.second)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return int(torch.randint(len(self.second), (), generator=generator))


class CycleGan:
    """Unpaired images of two domains.

    Items: ``image`` (A) and ``image_b`` (B), float32 (C, side, side) and (C_b, side, side),
    normalised by ``normalization`` and ``normalization_b``; ``valid`` and ``valid_b`` bool
    (side, side); ``name`` and ``name_b``. In training B is drawn by chance for each A; a set is
    as long as its larger domain, of which each image comes once per epoch when it is A.

    ``kind`` is ``unpaired``. The default augmentation flips and turns, each image by itself.
    """

    keywords = CHIP_KEYWORDS
    kind: ClassVar[str] = "unpaired"

    def build(self, request: DataRequest) -> PairedData:
        """Open the folders and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request)
        layouts = cyclegan_layouts(one_folder(request))
        side = whole_side(layouts[0].sets[0].size, request.dataset_type)
        domains, parts, sources, split_name = [], [], [], ""
        for layout in layouts:
            samples = paired_samples([layout], labelled=False)
            split, split_name = split_samples(samples, request)
            normalization, source = set_normalization(samples, 0, request)
            parts.append(normalization)
            sources.append(source)
            domains.append(
                parted_sets(
                    samples,
                    split,
                    StackLoader(ValidPixels()),
                    side_px=side,
                    parts=(normalization,),
                    request=request,
                    image_space=layout.image_space,
                )
            )
        (train_a, valid_a), (train_b, valid_b) = domains
        train = UnpairedDataset(train_a, train_b, draws=True)
        valid = UnpairedDataset(valid_a, valid_b, draws=False)
        bands = sum(part.bands for part in parts)
        both = [layout.sets[0] for layout in layouts]
        facts = image_facts(layouts[0], ("A", "B"), parts)
        facts |= {
            "all_bands": tuple(images.bands for images in both),
            "all_names": tuple(images.band_names for images in both),
            "all_dtypes": tuple(images.dtype for images in both),
        }
        return PairedData(
            **common_fields(request, train, valid, typical_batch_size(bands, side)),
            **facts,
            kind=self.kind,
            class_table=ClassTable(()),
            split=split_name,
            statistics_name=", ".join(dict.fromkeys(sources)),
            chip_size=side,
        )
