"""Small folders of training chips, cut from generated scenes by the real export."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from geodl.testing.scene import Scene, make_scene
from geodl.tools.export_training_data import export_training_data


def make_chips(
    folder: str | os.PathLike[str],
    dataset_type: str,
    *,
    chip_px: int = 64,
    grid: tuple[int, int] = (3, 3),
    bands: int = 3,
    dtype: str = "uint8",
    classes: Sequence[str] = ("building", "tree"),
    chip_format: str = "TIFF",
    seed: int = 0,
) -> Path:
    """Write a folder of labelled chips, the same for the same arguments.

    Parameters
    ----------
    folder
        Made if it is not there; the chips lie in ``chips`` in it, their scene in ``scene``.
    dataset_type
        A key of ``geodl.formats.FORMATS``.
    chip_px
        Side of a chip.
    grid
        Chips down and across the scene; those without a label are written too.
    bands, dtype, classes, seed
        Of the scene, see :func:`geodl.testing.make_scene`.
    chip_format
        ``TIFF``, ``PNG`` or ``JPEG``.

    Returns
    -------
    The folder of the export.
    """
    chips, _ = chips_with_scene(
        folder, dataset_type, chip_px=chip_px, grid=grid, bands=bands, dtype=dtype,
        classes=classes, chip_format=chip_format, seed=seed,
    )  # fmt: skip
    return chips


def chips_with_scene(
    folder: str | os.PathLike[str],
    dataset_type: str,
    *,
    chip_px: int,
    grid: tuple[int, int],
    bands: int,
    dtype: str,
    classes: Sequence[str],
    chip_format: str,
    seed: int,
) -> tuple[Path, Scene]:
    """As :func:`make_chips`, with the scene that the chips were cut from."""
    folder = Path(folder)
    rows, cols = (max(64, count * chip_px) for count in grid)
    scene = make_scene(
        folder / "scene", seed=seed, size=(rows, cols), bands=bands, dtype=dtype,
        classes=classes, nodata_corner=False,
    )  # fmt: skip
    chips = export_training_data(
        str(scene.raster),
        str(scene.labels),
        chip_format=chip_format,
        tile_size={"x": chip_px, "y": chip_px},
        stride_size={"x": chip_px, "y": chip_px},
        metadata_format=dataset_type,
        classvalue_field="class_name",
        output_location=folder / "chips",
        context={"exportAllTiles": True},
        progress=False,
    )
    return Path(chips), scene
