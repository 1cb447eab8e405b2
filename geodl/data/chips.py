"""The data object that training and models read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.core.contract import Normalization, TaskKind
from geodl.data.dataset import ChipDataset
from geodl.data.figure import ShownFigure
from geodl.data.loaders import BatchLoaders, Collate, collate_chips

# What is counted of each class.
_UNITS = {"objects": "objects", "instances": "objects", "tiles": "chips"}

__all__ = ["ChipData", "Collate", "collate_chips"]


@dataclass(kw_only=True, eq=False, repr=False)
class ChipData(BatchLoaders):
    """Training and validation chips with all that a model must know of them.

    Made by :func:`geodl.learn.prepare_data`.

    Attributes
    ----------
    path
        The export, or the first of several.
    working_dir
        Where models and caches go: ``models_dir`` is its ``models`` folder.
    dataset_type
        Metadata format of the export.
    kind
        What its labels are: ``objects`` (boxes), ``pixels`` (classes), ``instances`` (masks),
        ``tiles`` (classes of whole chips) or ``panoptic``.
    class_table, classes
        Classes in network order, and their names.
    bands, band_names, dtype
        Of the chips; names may be empty.
    extract_bands
        0-based bands that the network takes, in its order.
    normalization
        For these bands.
    statistics_name
        Where the normalisation comes from, for people.
    chip_size
        Side of the square items in pixels.
    batch_size
        Items in a training batch.
    split
        ``random`` or ``block``; printed with metrics.
    image_space, cell_size
        Of the export; least and largest cell size in units of its CRS, or None.
    pixel_scale
        Pixels of an item per pixel of its chip: other than 1 with ``resize_to``.
    train_ds, valid_ds
        Indexable data sets of items, see :class:`geodl.data.dataset.ChipDataset`.
    """

    path: Path
    working_dir: Path
    dataset_type: str
    kind: TaskKind
    class_table: ClassTable
    bands: int
    extract_bands: tuple[int, ...]
    band_names: tuple[str, ...]
    dtype: str
    normalization: Normalization
    statistics_name: str
    chip_size: int
    batch_size: int
    seed: int
    split: str
    resize_to: tuple[int, int] | None
    image_space: str
    cell_size: tuple[float, float] | None
    train_ds: ChipDataset
    valid_ds: ChipDataset
    count_classes: Callable[[], dict[int, int]] = field(repr=False)
    collate_fn: Collate = collate_chips
    num_workers: int = 0
    pixel_scale: float = 1.0

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in network order, without background."""
        return self.class_table.names

    @cached_property
    def class_counts(self) -> dict[int, int]:
        """Class value to the number of its objects or pixels, training and validation together.

        Raises
        ------
        FormatError
            A label file that must be counted is broken; names the file.
        """
        return self.count_classes()

    @property
    def models_dir(self) -> Path:
        """Where a model saved under a bare name goes."""
        return self.working_dir / "models"

    # -- for people ---------------------------------------------------------------------------

    def show_batch(self, rows: int = 3, *, columns: int = 3) -> ShownFigure:
        """Draw training chips with their labels, augmented as the network sees them.

        Parameters
        ----------
        rows, columns
            Of the picture.

        Returns
        -------
        The matplotlib Figure; in a notebook it is also shown.

        Raises
        ------
        OptionError
            Rows or columns below 1.
        """
        from geodl.data.draw import draw_batch

        return draw_batch(self, as_int(rows, "rows", minimum=1), columns)

    def _further(self) -> str:
        """How many exports are merged besides the first, for people."""
        further = len({chip.folder.path for chip in self.train_ds.store.chips} - {self.path})
        return f" and {further} more" if further else ""

    def __repr__(self) -> str:
        names = f" ({', '.join(self.band_names)})" if self.band_names else ""
        unit = _UNITS.get(self.kind, "pixels")
        lines = [
            f"ChipData: {self.dataset_type} in {os.fspath(self.path)}{self._further()}",
            f"  chips    {len(self.train_ds)} to train, {len(self.valid_ds)} to validate "
            f"({self.split} split, seed {self.seed}); {self.chip_size} x {self.chip_size} px, "
            f"batches of {self.batch_size}",
            f"  bands    {self.bands} x {self.dtype}{names}, normalised by {self.statistics_name}",
            f"  classes  {len(self.class_table)}, with their {unit} in both sets:",
        ]
        width = max((len(name) for name in self.classes), default=0)
        for entry in self.class_table:
            count = self.class_counts.get(entry.value, 0)
            lines.append(f"    {entry.value:>5}  {entry.name:<{width}}  {count:>9}")
        return "\n".join(lines)
