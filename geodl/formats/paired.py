"""Layouts of several images per sample: change detection, image translation, super-resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geodl.base.errors import FormatError, OptionError
from geodl.base.options import as_float
from geodl.core.classes import ClassTable
from geodl.formats.base import ESRI_EMD, ChipFolder, ChipRef
from geodl.formats.image_sets import (
    ImageSet,
    check_same,
    emd_classes,
    find_folder,
    image_set,
    list_files,
    need_folder,
    same_names,
)
from geodl.formats.inference import SUPERRES_FACTOR, read_metadata


@dataclass(frozen=True, kw_only=True)
class PairedLayout:
    """Images of several roles over the same ground, one of each per sample.

    Parameters
    ----------
    sets
        In the order of the type: before and after; A and B; A, B and C.
    names
        Of the samples; every set has them.
    labels
        Sample to its label raster; empty where the type has none.
    """

    path: Path
    sets: tuple[ImageSet, ...]
    names: tuple[str, ...] = field(repr=False)
    labels: Mapping[str, Path] = field(default_factory=dict, repr=False)
    classes: ClassTable | None = None
    image_space: str = "MAP_SPACE"
    cell_size: tuple[float, float] | None = None

    def as_folder(self, dataset_type: str) -> ChipFolder:
        """The facts of the first set in the form of a chip folder."""
        first = self.sets[0]
        cell = self.cell_size
        return ChipFolder(
            path=self.path,
            metadata_mode=dataset_type,
            chips=tuple(ChipRef(n, first.files[n], tuple(self.label(n))) for n in self.names),
            classes=self.classes or ClassTable(()),
            bands=first.bands,
            band_names=first.band_names,
            tile_size=first.size,
            image_space=self.image_space,
            cell_size=None if cell is None else ((cell[0],) * 2, (cell[1],) * 2),
            dtype=first.dtype,
        )

    def label(self, name: str) -> list[Path]:
        """The label of a sample, as a list that may be empty."""
        return [self.labels[name]] if name in self.labels else []


def change_layout(path: Path) -> PairedLayout:
    """``images``, ``images2`` and ``labels`` (or ``images_before``, ``images_after``).

    Raises
    ------
    FormatError
        A folder or chip that is missing, names that do not match, other sizes or bands.
    """
    emd = read_metadata(path / ESRI_EMD)
    before = _set(path, emd, "images", "images_before")
    after = _set(path, emd, "images2", "images_after", key="AllTilesStats2")
    names = same_names((before, after))
    check_same((before, after), bands=True)
    labels = list_files(need_folder(path, "labels"))
    _check_labels(labels, before)
    return _layout(path, emd, (before, after), names, labels=labels)


def pix2pix_layout(path: Path) -> PairedLayout:
    """``images`` (A) and ``images2`` (B); or ``labels`` (A, classes) and ``images`` (B).

    Also the older ``Images/train_a`` and ``Images/train_b``. With ``labels`` the only set is B.

    Raises
    ------
    FormatError
        As :func:`change_layout`, other bands allowed.
    """
    emd = read_metadata(path / ESRI_EMD)
    if find_folder(path, "images2") is None and find_folder(path, "labels") is not None:
        target = _set(path, emd, "images")
        labels = list_files(need_folder(path, "labels"))
        _check_labels(labels, target)
        return _layout(path, emd, (target,), list(target.files), labels=labels)
    if find_folder(path, "images/train_a") is not None:
        sets = (_set(path, {}, "images/train_a"), _set(path, {}, "images/train_b"))
    else:
        sets = (
            _set(path, emd, "images"),
            _set(path, emd, "images2", key="AllTilesStats2"),
        )
    names = same_names(sets)
    check_same(sets)
    return _layout(path, emd, sets, names)


def wnet_layout(path: Path) -> PairedLayout:
    """``train_A_C/images`` (A), ``train_B/images`` (B) and ``train_A_C/images2`` (C).

    Raises
    ------
    FormatError
        As :func:`change_layout`, other bands allowed.
    """
    sources, target = need_folder(path, "train_A_C"), need_folder(path, "train_B")
    emd, emd_b = read_metadata(sources / ESRI_EMD), read_metadata(target / ESRI_EMD)
    first = _set(sources, emd, "images")
    second = _set(target, emd_b, "images")
    third = _set(sources, emd, "images2", key="AllTilesStats2")
    names = same_names((first, second, third))
    check_same((first, second, third))
    return _layout(path, emd, (first, second, third), names)


def cyclegan_layouts(path: Path) -> tuple[PairedLayout, PairedLayout]:
    """Two unpaired sets: ``A/images`` and ``B/images``, or ``Images/train_a`` and ``train_b``.

    Raises
    ------
    FormatError
        A missing folder, or chips of another size in B than in A.
    """
    if find_folder(path, "images/train_a") is not None:
        roots, names = (path, path), ("images/train_a", "images/train_b")
    else:
        roots, names = (need_folder(path, "A"), need_folder(path, "B")), ("images", "images")
    found = []
    for root, name in zip(roots, names, strict=True):
        emd = read_metadata(root / ESRI_EMD)
        images = _set(root, emd, name)
        found.append(_layout(root, emd, (images,), list(images.files)))
    check_same([layout.sets[0] for layout in found])
    return found[0], found[1]


def superres_layout(path: Path) -> tuple[PairedLayout, float | None]:
    """High-resolution ``images``; or ``images`` with low and ``images2`` with high resolution.

    A folder that another reader has changed is taken too: there ``labels`` holds either copies
    that it made of the images (its factor file says so; they are not read), or what was
    ``images2``.

    Returns
    -------
    The layout, its sets low and high resolution or high alone, and the factor between the two
    sets; None with one set.

    Raises
    ------
    FormatError
        Names that do not match, or sizes that no whole factor relates.
    """
    emd = read_metadata(path / ESRI_EMD)
    images = _set(path, emd, "images")
    second = find_folder(path, "images2")
    if second is None and "AllTilesStats2" in emd and not (path / SUPERRES_FACTOR).is_file():
        second = find_folder(path, "labels")
    if second is None:
        return _layout(path, emd, (images,), list(images.files)), None
    high = image_set(second, emd, "AllTilesStats2", path / ESRI_EMD)
    names = same_names((images, high))
    factors = {high.size[i] / images.size[i] for i in (0, 1)}
    factor = factors.pop()
    if factors or factor < 1 or factor != round(factor):
        raise FormatError(
            f"The chips of {second} have {high.size[0]} x {high.size[1]} pixels, those of "
            f"{images.folder} {images.size[0]} x {images.size[1]}; super-resolution needs a whole "
            "factor between them. Export both over the same ground."
        )
    return _layout(path, emd, (images, high), names), factor


def _set(root: Path, emd: Mapping[str, Any], *names: str, key: str = "AllTilesStats") -> ImageSet:
    return image_set(need_folder(root, *names), emd, key, root / ESRI_EMD)


def _layout(
    path: Path,
    emd: Mapping[str, Any],
    sets: tuple[ImageSet, ...],
    names: list[str],
    **more: Any,
) -> PairedLayout:
    return PairedLayout(
        path=path,
        sets=sets,
        names=tuple(names),
        classes=emd_classes(emd, path / ESRI_EMD),
        image_space=str(emd.get("ImageSpaceUsed") or "MAP_SPACE"),
        cell_size=_cell_size(emd, path / ESRI_EMD),
        **more,
    )


def _cell_size(emd: Mapping[str, Any], where: Path) -> tuple[float, float] | None:
    """Least and largest cell size over both axes."""
    entries = [emd.get("MinCellSize"), emd.get("MaxCellSize")]
    sides = [e.get(axis) for e in entries if isinstance(e, dict) for axis in "xy"]
    if len(sides) != 4:
        return None
    try:
        numbers = [as_float(side, "a cell size") for side in sides]
    except OptionError as error:
        raise FormatError(f"{where}: {error}") from error
    return min(numbers), max(numbers)


def _check_labels(labels: Mapping[str, Path], images: ImageSet) -> None:
    """Every label has its image; images without one are left to the caller, who warns."""
    alone = sorted(labels.keys() - images.files.keys())
    if alone:
        raise FormatError(
            f"{labels[alone[0]]} has no image {alone[0]!r} in {images.folder}; labels and images "
            "are paired by name. Add or remove it."
        )
