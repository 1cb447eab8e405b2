"""PointCloud: blocks of classified points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from geodl.base.errors import DataError, FormatError
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.data.dataset import SeededItems
from geodl.data.paired import loader_limit
from geodl.data.point_classes import (
    LAS_NAMES,
    CodeRules,
    check_sets_alike,
    code_rules,
    codes_of,
    kept_blocks,
)
from geodl.data.point_data import PointData
from geodl.data.request import DataRequest
from geodl.data.sample_data import common_fields, named, one_folder, refuse_arguments
from geodl.data.split import random_split
from geodl.data.store import ChipStore, LoadedChip
from geodl.data.transform3d import Transform3d, transforms_3d
from geodl.formats.image_sets import find_folder
from geodl.formats.pctd import open_pctd
from geodl.formats.point_blocks import PointSet, check_attributes, columns_of
from geodl.formats.points_legacy import is_legacy, open_legacy

POINT_KEYWORDS = frozenset(
    {
        "min_points",
        "extra_features",
        "remap_classes",
        "classes_of_interest",
        "background_classcode",
        "num_workers",
    }
)
# Points in a batch that trains within a few gigabytes.
BATCH_POINTS = 2**17


@dataclass(frozen=True, slots=True)
class BlockRef:
    """One block of a set."""

    blocks: PointSet
    index: int

    @property
    def name(self) -> str:
        return self.blocks.name(self.index)


class BlockLoader:
    """Reads a block for the store: xyz and attributes (N, 3 + F), class indices (N,). Picklable.

    Parameters
    ----------
    attributes
        Read besides x, y and z.
    index_of
        LAS code to network index, or ``IGNORE_INDEX``.
    """

    def __init__(self, attributes: Sequence[str], index_of: Mapping[int, int]) -> None:
        self.attributes = tuple(attributes)
        self.codes = np.array(sorted(index_of), np.int64)
        self.indices = np.array([index_of[code] for code in sorted(index_of)], np.int64)

    def __call__(self, ref: BlockRef) -> LoadedChip:
        block = ref.blocks.read(ref.index, self.attributes)
        if block.codes is None:
            raise FormatError(f"{ref.blocks.file(ref.index)} has no class codes to learn from.")
        target = self.indices[np.searchsorted(self.codes, block.codes)]
        return LoadedChip(np.concatenate([block.xyz, block.attributes], axis=1), None, target)


class PointDataset(SeededItems):
    """Blocks of one set as items, see :class:`PointCloud`.

    Parameters
    ----------
    store
        Read blocks.
    unit
        Units of the CRS per unit of the coordinates.
    transform
        Drawn anew each time; None leaves the blocks.
    """

    def __init__(self, store: ChipStore, unit: float, transform: Transform3d | None) -> None:
        self.store = store
        self.unit = unit
        self.transform = transform

    def __len__(self) -> int:
        return len(self.store)

    def _item(self, index: int) -> dict[str, Any]:
        block = self.store[index]
        points: Tensor = torch.from_numpy(block.data).clone()
        if self.transform is not None:
            points[:, :3] = self.transform.points(points[:, :3], self.unit)
        return {
            "points": points,
            "target": torch.from_numpy(block.target),
            "name": self.store.chips[index].name,
        }


class PointCloud:
    """Blocks of classified points.

    Items: ``points`` float32 (N, 3 + F): x, y, z from the block's centre in units of half a block
    (so that x and y lie in -1..1 before augmentation), then the ``extra_features``, scaled to
    0..1 by the limits of the export; ``target`` int64 (N,): network index 0..K, where 0 is class
    code 0, and ``IGNORE_INDEX`` for codes that the export excludes; ``name``. N differs from block
    to block, at most ``max_points``; batches are padded, see `collate_points`.

    ``kind`` is ``points``. Class values are LAS codes, after ``remap_classes`` and
    ``background_classcode``; names are those of LAS 1.4 unless ``class_mapping`` has others.
    """

    keywords = POINT_KEYWORDS
    kind: ClassVar[str] = "points"

    def build(self, request: DataRequest) -> PointData:
        """Open the folder and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request, mapping=False)
        path = one_folder(request)
        sets = _open_sets(path)
        united_codes = codes_of(list(sets.values()))
        rules = code_rules(request, united_codes)
        first = next(iter(sets.values()))
        attributes = check_attributes(
            request.options.get("extra_features", ()) or (), first.facts, path
        )
        train, valid, split = _blocks(sets, rules, united_codes, request)
        values = {code: rules.value(code) for code in united_codes}
        table = _table(values, first.facts.excluded, request)
        loader = BlockLoader(attributes, _indices(values, first.facts.excluded, table))
        make = partial(_dataset, loader=loader, request=request, unit=first.facts.scale)
        train_transform, valid_transform = transforms_3d(request.transforms)
        train_ds = make(train, transform=train_transform)
        valid_ds = make(valid, transform=valid_transform)
        batch = max(2, BATCH_POINTS // first.facts.max_points)
        return PointData(
            **common_fields(request, train_ds, valid_ds, batch),
            kind=self.kind,
            class_table=table,
            split=split,
            unit="points",
            count_classes=partial(_count, (train_ds, valid_ds), table),
            max_points=first.facts.max_points,
            typical_points=typical_points(train),
            tile_size=first.facts.tile_size,
            scale=first.facts.scale,
            unit_m=first.facts.unit_m,
            extra_features=attributes,
            features=3 + columns_of(first.facts, attributes),
            limits={name: first.facts.limits[name] for name in attributes},
            codes=_codes(values, first.facts.excluded, table),
        )


def _dataset(
    blocks: Sequence[BlockRef],
    *,
    loader: BlockLoader,
    request: DataRequest,
    unit: float,
    transform: Transform3d | None,
) -> PointDataset:
    return PointDataset(ChipStore(blocks, loader, loader_limit(request) // 2), unit, transform)


def _open_sets(path: Path) -> dict[str, PointSet]:
    """``train`` and ``val``, or one set under the name ``all``."""
    if is_legacy(path):
        return {**open_legacy(path)}
    parts = {name: find_folder(path, name) for name in ("train", "val")}
    found = {name: folder for name, folder in parts.items() if folder is not None}
    if len(found) == 1:
        raise FormatError(
            f"{path} has no folder {'val' if 'train' in found else 'train'!r}; an export that is "
            "split has both 'train' and 'val'."
        )
    if not found:
        return {"all": open_pctd(path)}
    sets = {name: open_pctd(folder) for name, folder in found.items()}
    check_sets_alike(sets["train"], sets["val"])
    return {**sets}


def _blocks(
    sets: Mapping[str, PointSet], rules: CodeRules, known: Sequence[int], request: DataRequest
) -> tuple[list[BlockRef], list[BlockRef], str]:
    kept = {
        name: [BlockRef(blocks, i) for i in kept_blocks(blocks, rules, known, request)]
        for name, blocks in sets.items()
    }
    if "all" not in kept:
        return kept["train"], kept["val"], "folder"
    # Blocks of one file overlap: only whole files keep the sets apart.
    blocks = kept["all"]
    files = sorted({ref.blocks.file(ref.index) for ref in blocks})
    if len(files) < 2:
        raise DataError(
            f"{sets['all'].folder} is not split into 'train' and 'val' and has one block file, "
            "whose blocks overlap. Export from two or more files, or with both folders."
        )
    names = [file.relative_to(sets["all"].folder).as_posix() for file in files]
    split = random_split(names, request.val_split_pct, request.seed)
    chosen = {files[i] for i in split.valid}
    train = [ref for ref in blocks if ref.blocks.file(ref.index) not in chosen]
    valid = [ref for ref in blocks if ref.blocks.file(ref.index) in chosen]
    return train, valid, "file"


def _table(values: Mapping[int, int], excluded: Sequence[int], request: DataRequest) -> ClassTable:
    used = sorted({value for code, value in values.items() if code not in excluded} - {0})
    if not used:
        raise DataError(f"{request.paths[0]} has no class besides 0; there is nothing to learn.")
    own = ClassTable.from_mapping({value: LAS_NAMES.get(value, str(value)) for value in used})
    return named(own, request)


def _codes(
    values: Mapping[int, int], excluded: Sequence[int], table: ClassTable
) -> tuple[int, ...]:
    zero = any(value == 0 for code, value in values.items() if code not in excluded)
    return ((0,) if zero else ()) + tuple(table.values)


def typical_points(refs: Sequence[Any]) -> int:
    """The median number of points of blocks."""
    return int(np.median([ref.blocks.counts()[ref.index] for ref in refs]))


def _indices(
    values: Mapping[int, int], excluded: Sequence[int], table: ClassTable
) -> dict[int, int]:
    place = table.index_by_value
    return {
        code: IGNORE_INDEX if code in excluded else place[value] for code, value in values.items()
    }


def _count(sets: Sequence[PointDataset], table: ClassTable) -> dict[int, int]:
    """Points of each class in all blocks; a point counts in each block that it lies in."""
    value_of = table.value_of_index()
    total: Counter[int] = Counter()
    for items in sets:
        for i in range(len(items)):
            target = items.store[i].target
            found, numbers = np.unique(target[target >= 0], return_counts=True)
            total.update(dict(zip(value_of[found].tolist(), numbers.tolist(), strict=True)))
    return dict(total)
