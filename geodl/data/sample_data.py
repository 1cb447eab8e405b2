"""The data object of types that are more than one image and its label."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from geodl.base.errors import DataError, NotSupportedError, OptionError
from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.data.loaders import BatchLoaders, Collate, collate_samples
from geodl.data.request import DataRequest

Items = Dataset[dict[str, Any]]


def no_counts() -> dict[int, int]:
    """For types without classes."""
    return {}


@dataclass(kw_only=True, eq=False, repr=False)
class SampleData(BatchLoaders, ABC):
    """Training and validation samples with what a model must know of them.

    Attributes
    ----------
    path, working_dir, dataset_type, seed, split, batch_size
        As in :class:`geodl.data.chips.ChipData`.
    kind
        What the samples are, for models to check: see the builder of the type.
    class_table, classes
        Classes in network order, and their names; empty for types without classes.
    train_ds, valid_ds
        Indexable sets of items; the type's builder says what they hold.
    unit
        What ``class_counts`` counts.
    """

    path: Path
    working_dir: Path
    dataset_type: str
    kind: str
    class_table: ClassTable
    batch_size: int
    seed: int
    split: str
    train_ds: Items
    valid_ds: Items
    collate_fn: Collate
    num_workers: int = 0
    unit: str = "samples"
    count_classes: Callable[[], dict[int, int]] = no_counts

    @staticmethod
    def default_collate(items: list[dict[str, Any]]) -> Any:
        """Join items where neither the user nor the model says how."""
        return collate_samples(items)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in network order, without background."""
        return self.class_table.names

    @cached_property
    def class_counts(self) -> dict[int, int]:
        """Class value to the number of its ``unit``, training and validation together."""
        return self.count_classes()

    @property
    def models_dir(self) -> Path:
        """Where a model saved under a bare name goes."""
        return self.working_dir / "models"

    def show_batch(self, rows: int = 3) -> Any:
        """Draw training samples as the network sees them.

        Returns
        -------
        The Figure (matplotlib; plotly for point clouds where it is installed); in a notebook it
        is also shown.

        Raises
        ------
        OptionError
            Rows below 1.
        """
        return self.draw(as_int(rows, "rows", minimum=1))

    @abstractmethod
    def draw(self, rows: int) -> Any:
        """The type's picture of ``rows`` rows of samples."""

    def facts(self) -> list[tuple[str, str]]:
        """Lines of the repr: a word and what it is."""
        return []

    def __repr__(self) -> str:
        sets = f"{len(self.train_ds)} to train, {len(self.valid_ds)} to validate"  # type: ignore[arg-type]
        lines = [f"{type(self).__name__}: {self.dataset_type} in {os.fspath(self.path)}"]
        rows = [
            ("samples", f"{sets} ({self.split} split, seed {self.seed}); batches of "
                        f"{self.batch_size}"),
            *self.facts(),
        ]  # fmt: skip
        if len(self.class_table):
            rows.append(
                ("classes", f"{len(self.class_table)}, with their {self.unit} in both sets:")
            )
        indent = max(len(word) for word, _ in rows)
        lines += [f"  {word:<{indent}}  {text}" for word, text in rows]
        width = max((len(name) for name in self.classes), default=0)
        for entry in self.class_table:
            count = self.class_counts.get(entry.value, 0)
            lines.append(f"    {entry.value:>5}  {entry.name:<{width}}  {count:>9}")
        return "\n".join(lines)


def common_fields(request: DataRequest, train: Items, valid: Items, batch: int) -> dict[str, Any]:
    """The arguments of a :class:`SampleData` that follow from the request alone.

    Parameters
    ----------
    batch
        Size of a batch where the caller leaves it to us.
    """
    return {
        "path": request.paths[0],
        "working_dir": request.working_dir or request.paths[0],
        "dataset_type": request.dataset_type,
        "batch_size": min(request.batch_size or batch, len(train)),  # type: ignore[arg-type]
        "seed": request.seed,
        "train_ds": train,
        "valid_ds": valid,
        "collate_fn": request.collate_fn,
        "num_workers": as_int(request.options.get("num_workers", 0), "num_workers", minimum=0),
    }


def one_folder(request: DataRequest) -> Path:
    """The folder of a type that cannot be merged.

    Raises
    ------
    NotSupportedError
        Several folders.
    """
    if len(request.paths) > 1:
        raise NotSupportedError(
            f"{request.dataset_type} takes one folder; {len(request.paths)} were given. "
            "Copy them into one, or train on one of them."
        )
    return request.paths[0]


def refuse_arguments(request: DataRequest, *, mapping: bool = True, resize: bool = True) -> None:
    """Refuse arguments that have no meaning for a type.

    Parameters
    ----------
    mapping, resize
        Refuse ``class_mapping``, ``resize_to``.

    Raises
    ------
    OptionError
        One of them is given.
    """
    if mapping and request.class_mapping:
        raise OptionError(
            f"class_mapping does not apply to {request.dataset_type}, which has no classes of "
            "its own to name. Leave it out."
        )
    if resize and request.resize_to is not None:
        raise OptionError(
            "resize_to works for PASCAL_VOC_rectangles, Labeled_Tiles, superres and Imagenet; "
            f"this data set is {request.dataset_type}. Leave it out."
        )


def named(classes: ClassTable, request: DataRequest) -> ClassTable:
    """The classes by the names of ``class_mapping`` where it has them.

    Raises
    ------
    DataError
        A value in ``class_mapping`` that no class has, or a name given twice.
    """
    mapping = request.class_mapping
    strange = [value for value in mapping if value != 0 and value not in classes.values]
    if strange:
        raise DataError(
            f"class_mapping names the value {', '.join(map(str, strange))}, which no class of "
            f"{request.paths[0]} has. The classes are "
            f"{', '.join(f'{e.value} ({e.name})' for e in classes) or 'none'}."
        )
    return ClassTable(tuple(replace(e, name=mapping.get(e.value, e.name)) for e in classes))


def refuse_transforms(request: DataRequest) -> None:
    """Refuse transforms of one's own for a type whose samples are no pictures to move.

    Raises
    ------
    OptionError
        ``transforms`` is neither None, True nor False.
    """
    if not (request.transforms is None or isinstance(request.transforms, bool)):
        raise OptionError(
            f"transforms={request.transforms!r}: {request.dataset_type} takes no transforms; give "
            "None for the default or False for none."
        )
