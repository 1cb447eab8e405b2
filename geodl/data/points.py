"""PointCloud: blocks of classified points."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geodl.base.errors import DataError, DataWarning, FormatError, OptionError
from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.data.dataset import seeded
from geodl.data.paired import loader_limit
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

# The standard codes of LAS 1.4, point formats 6 to 10.
LAS_NAMES = {
    1: "Unclassified", 2: "Ground", 3: "Low vegetation", 4: "Medium vegetation",
    5: "High vegetation", 6: "Building", 7: "Low noise", 8: "Key point", 9: "Water", 10: "Rail",
    11: "Road surface", 13: "Wire guard", 14: "Wire conductor", 15: "Transmission tower",
    16: "Wire connector", 17: "Bridge deck", 18: "High noise",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BlockRef:
    """One block of a set."""

    blocks: PointSet
    index: int

    @property
    def name(self) -> str:
        return self.blocks.name(self.index)


@dataclass(frozen=True, kw_only=True)
class CodeRules:
    """What becomes of class codes before a network sees them.

    Parameters
    ----------
    remap
        Code to its new value.
    interest
        New values that matter; empty: all.
    background
        What all others become; None: they stay.
    """

    remap: Mapping[int, int]
    interest: tuple[int, ...] = ()
    background: int | None = None

    def value(self, code: int) -> int:
        """The class value of a LAS code."""
        value = self.remap.get(code, code)
        if self.interest and self.background is not None and value not in self.interest:
            return self.background
        return value

    def wanted(self, codes: Sequence[int]) -> list[int]:
        """Codes whose new value matters."""
        return [c for c in codes if not self.interest or self.remap.get(c, c) in self.interest]


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


class PointDataset(Dataset[dict[str, Any]]):
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

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        if isinstance(index, tuple):
            with seeded(index[1]):
                return self._item(index[0])
        return self._item(int(index))

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
            tile_size=first.facts.tile_size,
            scale=first.facts.scale,
            extra_features=attributes,
            features=3 + columns_of(first.facts, attributes),
            limits={name: first.facts.limits[name] for name in attributes},
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


def check_sets_alike(train: Any, valid: Any) -> None:
    """Hold both sets to one scale and the same attributes; other classes only warn.

    Raises
    ------
    DataError
        Names the folder that differs.
    """
    ours, theirs = train.facts, valid.facts
    if ours.scale != theirs.scale or ours.tile_size != theirs.tile_size:
        raise DataError(
            f"Blocks of {valid.folder} have the size {theirs.tile_size:g}, those of "
            f"{train.folder} {ours.tile_size:g}; export both alike."
        )
    if set(ours.limits) != set(theirs.limits):
        raise DataError(
            f"{valid.folder} has the attributes {', '.join(theirs.limits) or 'none'}, "
            f"{train.folder} {', '.join(ours.limits) or 'none'}; export both alike."
        )
    if ours.codes != theirs.codes:
        warnings.warn(
            f"The classes of {train.folder} are {', '.join(map(str, ours.codes))}, those of "
            f"{valid.folder} {', '.join(map(str, theirs.codes))}; all of them are used.",
            DataWarning,
            stacklevel=5,
        )


def codes_of(sets: Sequence[Any]) -> tuple[int, ...]:
    """Class codes of all sets, ascending."""
    return tuple(sorted({code for one in sets for code in one.facts.codes}))


def as_codes(given: Any, name: str) -> tuple[int, ...]:
    """Whole numbers from a list of them. Raises OptionError."""
    if given is None:
        return ()
    if isinstance(given, (str, bytes)) or not isinstance(given, (list, tuple, set)):
        raise OptionError(f"{name}={given!r} is no list of class codes.")
    return tuple(as_int(code, name, minimum=0) for code in given)


def as_remap(given: Any, known: Sequence[int]) -> dict[int, int]:
    """``remap_classes`` as whole numbers. Raises OptionError on a code that the data has not."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(f"remap_classes={given!r} is no dict of code to code.")
    remap = {
        as_int(code, "remap_classes"): as_int(new, "remap_classes", minimum=0)
        for code, new in given.items()
    }
    strange = sorted(remap.keys() - set(known))
    if strange:
        raise OptionError(
            f"remap_classes names the code {strange[0]}, which the data does not have "
            f"({', '.join(map(str, known))})."
        )
    return remap


def code_rules(request: DataRequest, known: Sequence[int]) -> CodeRules:
    """The three class options of point clouds.

    Raises
    ------
    OptionError
        Codes that the data does not have, or a background without classes of interest.
    """
    options = request.options
    remap = as_remap(options.get("remap_classes"), known)
    interest = as_codes(options.get("classes_of_interest"), "classes_of_interest")
    after = sorted({remap.get(code, code) for code in known})
    strange = sorted(set(interest) - set(after))
    if strange:
        raise OptionError(
            f"classes_of_interest names {strange[0]}; after remap_classes the data has "
            f"{', '.join(map(str, after))}."
        )
    given = options.get("background_classcode")
    if given is not None and not interest:
        raise OptionError("background_classcode needs classes_of_interest, all other classes of "
                          "which become background.")  # fmt: skip
    background = None if given is None else as_int(given, "background_classcode", minimum=0)
    return CodeRules(remap=remap, interest=interest, background=background)


def kept_blocks(
    blocks: Any, rules: CodeRules, known: Sequence[int], request: DataRequest
) -> list[int]:
    """Positions of the blocks that are large enough and hold a class that matters.

    Raises
    ------
    OptionError
        ``min_points`` below 1.
    DataError
        None is left.
    """
    least = as_int(request.options.get("min_points") or 1, "min_points", minimum=1)
    wanted = rules.wanted(known)
    counts = blocks.counts()
    kept = [
        i
        for i in range(len(blocks))
        if counts[i] >= least and (not rules.interest or blocks.has_codes(i, wanted))
    ]
    if not kept:
        raise DataError(
            f"No block of {blocks.folder} has {least} points or more"
            + (f" and one of the classes {list(rules.interest)}" if rules.interest else "")
            + ". Lower min_points, or export more."
        )
    return kept


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
