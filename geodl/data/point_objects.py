"""PointCloudOD: blocks of points with the boxes of objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from geodl.base.errors import DataError
from geodl.base.options import as_bool
from geodl.core.classes import ClassTable
from geodl.data.dataset import SeededItems
from geodl.data.paired import loader_limit
from geodl.data.point_classes import CodeRules, check_sets_alike, code_rules, codes_of, kept_blocks
from geodl.data.point_data import ObjectPointData
from geodl.data.points import BATCH_POINTS, POINT_KEYWORDS, typical_points
from geodl.data.request import DataRequest
from geodl.data.sample_data import common_fields, named, one_folder, refuse_arguments
from geodl.data.store import ChipStore, LoadedChip
from geodl.data.transform3d import Transform3d, transforms_3d
from geodl.formats.image_sets import need_folder
from geodl.formats.pcotd import PcotdSet, open_pcotd
from geodl.formats.point_blocks import check_attributes, columns_of

# Least share of an object's points that a block must hold for it to count there.
LEAST_SHARE = {"train": 0.2, "val": 0.3}


@dataclass(frozen=True, slots=True)
class ObjectBlockRef:
    """One block of a set."""

    blocks: PcotdSet
    index: int
    least_share: float

    @property
    def name(self) -> str:
        return self.blocks.name(self.index)


class ObjectLoader:
    """Reads a block for the store; points in units of the CRS. Picklable.

    Parameters
    ----------
    attributes
        Read besides x, y and z.
    index_of
        Object code to network index 1..K; objects of other codes are dropped.
    """

    def __init__(self, attributes: Sequence[str], index_of: Mapping[int, int]) -> None:
        self.attributes = tuple(attributes)
        self.index_of = dict(index_of)

    def __call__(self, ref: ObjectBlockRef) -> LoadedChip:
        block = ref.blocks.read(ref.index, self.attributes)
        xyz = block.points.xyz * np.float32(ref.blocks.facts.scale)
        labels = np.array([self.index_of.get(code, 0) for code in block.codes.tolist()], np.int64)
        kept = (labels > 0) & (block.share > ref.least_share)
        return LoadedChip(
            np.concatenate([xyz, block.points.attributes], axis=1).astype(np.float32),
            None,
            (block.boxes[kept].astype(np.float32), labels[kept]),
        )


class ObjectPointDataset(SeededItems):
    """Blocks of one set as items, see :class:`PointCloudOD`."""

    def __init__(self, store: ChipStore, transform: Transform3d | None) -> None:
        self.store = store
        self.transform = transform

    def __len__(self) -> int:
        return len(self.store)

    def _item(self, index: int) -> dict[str, Any]:
        block = self.store[index]
        points = torch.from_numpy(block.data).clone()
        boxes, labels = (torch.from_numpy(array) for array in block.target)
        if self.transform is not None:
            points[:, :3], boxes = self.transform.objects(points[:, :3], boxes)
        return {
            "points": points,
            "target": {"boxes": boxes, "labels": labels},
            "name": self.store.chips[index].name,
        }


class PointCloudOD:
    """Blocks of points with oriented boxes of objects.

    Items: ``points`` float32 (N, 3 + F): x, y, z from the block's origin in units of the CRS,
    then the ``extra_features``, scaled to 0..1; ``target``: ``boxes`` float32 (M, 7) x, y, z of
    the bottom, length, width, height, yaw (radians, anticlockwise from x) in the same units, and
    ``labels`` int64 (M,) 1..K; ``name``. Objects of which a block holds a fifth of the points or
    less (training; three tenths in validation) are no target there.

    ``kind`` is ``boxes3d``. Class values are object codes after ``remap_classes``; code 0, which
    exports without a code field have, becomes the least number that is free, named ``Object``.
    ``background_classcode=True`` drops the objects of no interest instead of learning them too.
    """

    keywords = POINT_KEYWORDS
    kind: ClassVar[str] = "boxes3d"

    def build(self, request: DataRequest) -> ObjectPointData:
        """Open the folder and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request, mapping=False)
        path = one_folder(request)
        sets = {name: open_pcotd(need_folder(path, name)) for name in ("train", "val")}
        check_sets_alike(sets["train"], sets["val"])
        codes = codes_of(list(sets.values()))
        rules, drops = _rules(request, codes)
        values = _values(codes, rules, drops)
        table = _table(values, request)
        facts = sets["train"].facts
        attributes = check_attributes(request.options.get("extra_features", ()) or (), facts, path)
        place = table.index_by_value
        loader = ObjectLoader(attributes, {code: place[value] for code, value in values.items()})
        pair = transforms_3d(request.transforms)
        datasets = []
        for (name, blocks), transform in zip(sets.items(), pair, strict=True):
            kept = kept_blocks(blocks, rules, codes, request)
            refs = [ObjectBlockRef(blocks, i, LEAST_SHARE[name]) for i in kept]
            store = ChipStore(refs, loader, loader_limit(request) // 2)
            datasets.append(ObjectPointDataset(store, transform))
        train, valid = datasets
        return ObjectPointData(
            **common_fields(request, train, valid, max(2, BATCH_POINTS // facts.max_points)),
            kind=self.kind,
            class_table=table,
            split="folder",
            unit="objects",
            count_classes=partial(_count, datasets, loader.index_of, table),
            max_points=facts.max_points,
            typical_points=typical_points(train.store.chips),
            tile_size=facts.tile_size,
            scale=1.0,
            unit_m=facts.unit_m,
            extra_features=attributes,
            features=3 + columns_of(facts, attributes),
            limits={name: facts.limits[name] for name in attributes},
            codes=tuple(table.values),
            **_sizes(sets["train"], values),
        )


def _rules(request: DataRequest, codes: Sequence[int]) -> tuple[CodeRules, bool]:
    """The class options; ``background_classcode`` is a switch here."""
    given = request.options.get("background_classcode", False)
    drops = as_bool(given if given is not None else False, "background_classcode")
    options = {k: v for k, v in request.options.items() if k != "background_classcode"}
    return code_rules(replace(request, options=options), codes), drops


def _values(codes: Sequence[int], rules: CodeRules, drops: bool) -> dict[int, int]:
    """Object code to class value; codes that are dropped are not in it."""
    values = {code: rules.value(code) for code in codes}
    if drops and rules.interest:
        values = {code: value for code, value in values.items() if value in rules.interest}
    free = next(n for n in range(1, len(values) + 2) if n not in values.values())
    return {code: value if value != 0 else free for code, value in values.items()}


def _table(values: Mapping[int, int], request: DataRequest) -> ClassTable:
    if not values:
        raise DataError(f"No object of {request.paths[0]} is left to learn from.")
    unnamed = {value for code, value in values.items() if code == 0}
    names = {v: "Object" if v in unnamed else str(v) for v in sorted(set(values.values()))}
    return named(ClassTable.from_mapping(names), request)


def _sizes(blocks: PcotdSet, values: Mapping[int, int]) -> dict[str, Any]:
    """Sizes by class value; of merged codes the mean, and the widest range."""
    grouped: dict[int, list[Any]] = {}
    for code, sizes in blocks.sizes.items():
        if code in values:
            grouped.setdefault(values[code], []).append(sizes)
    average, ranges = {}, {}
    for value, several in grouped.items():
        length, width, height = np.mean([sizes.average for sizes in several], axis=0).tolist()
        average[value] = (length, width, height)
        ranges[value] = min(s.z[0] for s in several), max(s.z[1] for s in several)
    return {"average_sizes": average, "z_ranges": ranges}


def _count(
    sets: Sequence[ObjectPointDataset], index_of: Mapping[int, int], table: ClassTable
) -> dict[int, int]:
    """Objects of each class over all blocks; one counts in each block that it lies in."""
    value_of = table.value_of_index()
    total: Counter[int] = Counter()
    for items in sets:
        for ref in items.store.chips:
            _, codes, share = ref.blocks.read_objects(ref.index)
            kept = [c for c, s in zip(codes.tolist(), share, strict=True) if s > ref.least_share]
            total.update(int(value_of[index_of[code]]) for code in kept if code in index_of)
    return dict(total)
