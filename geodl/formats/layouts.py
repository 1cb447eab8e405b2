"""Training data that is no plain folder of chips: what lies in it, opened and read part by part."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import FormatError, SourceNotFoundError
from geodl.formats.captions import ANNOTATIONS, open_captions
from geodl.formats.climate import open_climate
from geodl.formats.image_sets import ImageSet, find_folder
from geodl.formats.images import open_image, read_class_raster, read_image
from geodl.formats.inference import infer_dataset_type, is_export, points_type
from geodl.formats.paired import (
    PairedLayout,
    change_layout,
    cyclegan_layouts,
    pix2pix_layout,
    superres_layout,
    wnet_layout,
)
from geodl.formats.pcotd import open_pcotd
from geodl.formats.pctd import PctdSet, open_pctd
from geodl.formats.points_legacy import META, is_legacy, open_legacy
from geodl.formats.time_series import open_series
from geodl.formats.tracks import open_tracks

_SETS = ("train", "val")


@dataclass(frozen=True)
class Layout:
    """An opened folder.

    Parameters
    ----------
    facts
        JSON: what it holds, for people.
    parts
        Each file with a call that reads and checks it, and raises FormatError.
    """

    facts: dict[str, Any]
    parts: Iterable[tuple[Path, Callable[[], object]]]


def layout_of(path: Path, given: str | None = None) -> str | None:
    """The dataset type of a folder that is no plain folder of chips; None for chips.

    Parameters
    ----------
    given
        What the caller says it is.
    """
    if given is not None:
        return given if given in LAYOUTS else None
    if not is_export(path):
        found = points_type(path) or next((n for n, is_so in _SIGNS.items() if is_so(path)), None)
        if found is not None:
            return found
    try:
        name = infer_dataset_type(path)
    except (FormatError, SourceNotFoundError):
        return None
    # Chips with a second raster are checked as chips.
    return name if name in ("PSETAE", "ClimaX", "WNet_cGAN", "ImageCaptioning") else None


def _has_all(path: Path, *names: str) -> bool:
    return all((path / name).exists() for name in names)


# What a folder of images without Esri's files is known by.
_SIGNS: dict[str, Callable[[Path], bool]] = {
    "ObjectTracking": lambda path: _has_all(path, "JPEGImages", "Annotations", META),
    "WNet_cGAN": lambda path: _has_all(path, "train_A_C", "train_B"),
    "ImageCaptioning": lambda path: _has_all(path, ANNOTATIONS, "images"),
    "ChangeDetection": lambda path: _has_all(path, "images_before", "images_after"),
}


# -- images -----------------------------------------------------------------------------------


def _whole_image(images: ImageSet, path: Path) -> None:
    shape = read_image(path).data.shape
    expected = (images.bands, images.size[1], images.size[0])
    if shape != expected:
        raise FormatError(
            f"{path} has {shape[0]} bands of {shape[2]} x {shape[1]} pixels, the first chip of "
            f"{images.folder} {expected[0]} of {expected[2]} x {expected[1]}."
        )


def _label_image(images: ImageSet, path: Path) -> None:
    rows, columns = read_class_raster(path).shape
    if (columns, rows) != images.size:
        raise FormatError(
            f"{path} has {columns} x {rows} pixels and its image {images.size[0]} x "
            f"{images.size[1]}; a label has the size of its image."
        )


def _images(images: ImageSet) -> Iterator[tuple[Path, Callable[[], object]]]:
    return ((path, partial(_whole_image, images, path)) for path in images.files.values())


def _pairs(layout: PairedLayout, *more: PairedLayout) -> Layout:
    every = [layout, *more]
    sets = [images for one in every for images in one.sets]
    labels = (
        (path, partial(_label_image, one.sets[0], path))
        for one in every
        for path in one.labels.values()
    )
    facts: dict[str, Any] = {
        "samples": [len(one.names) for one in every] if more else len(layout.names),
        "sets": [
            {"folder": images.folder.name, "bands": images.bands, "dtype": images.dtype,
             "size": list(images.size)}
            for images in sets
        ],
        "labels": len(layout.labels),
    }  # fmt: skip
    return Layout(facts, itertools.chain(*map(_images, sets), labels))


def _captions(path: Path) -> Layout:
    layout = open_captions(path)
    # Pictures that people have described come in many sizes.
    parts = ((file, partial(read_image, file)) for file in layout.images.files.values())
    sentences = sum(map(len, layout.captions.values()))
    return Layout({"images": len(layout.images.files), "sentences": sentences}, parts)


def _tracks(path: Path) -> Layout:
    layout = open_tracks(path)
    frames = {frame.image: frame for track in layout.tracks for frame in track.frames}

    def check(image: Path, mask: Path) -> None:
        with open_image(image) as one, open_image(mask) as two:
            if one.shape != two.shape:
                raise FormatError(
                    f"{mask} has {two.width} x {two.height} pixels and its frame {image.name} "
                    f"{one.width} x {one.height}."
                )

    parts = ((image, partial(check, image, frame.mask)) for image, frame in frames.items())
    facts = {"sequences": len(layout.sequences), "tracks": len(layout.tracks)}
    return Layout(facts, parts)


def _series(path: Path) -> Layout:
    layout = open_series(path, None, None)
    parts = ((region.mask, partial(layout.read, region)) for region in layout.regions)
    facts = {
        "chips": len(layout.images.files),
        "regions": len(layout.regions),
        "steps": layout.steps,
        "bands": layout.bands,
        "classes": sorted({region.value for region in layout.regions}),
    }
    return Layout(facts, parts)


def _climate(path: Path) -> Layout:
    layout = open_climate(path)
    first = next(iter(layout.variables.values()))
    parts = ((first.files[name], partial(layout.read, name)) for name in layout.names)
    facts = {
        "chips": len(layout.names),
        "variables": list(layout.variables),
        "steps": layout.steps,
    }
    return Layout(facts, parts)


# -- points -----------------------------------------------------------------------------------


def _folders(path: Path) -> dict[str, Path]:
    """``train`` and ``val``, or the folder itself."""
    found = {name: find_folder(path, name) for name in _SETS}
    there = {name: folder for name, folder in found.items() if folder is not None}
    if len(there) == 1:
        raise FormatError(f"{path} has one of the folders 'train' and 'val'; it needs both.")
    return there or {"all": path}


def _blocks(sets: Mapping[str, Any]) -> Layout:
    parts = (
        (blocks.file(index), partial(_block, blocks, index))
        for blocks in sets.values()
        for index in range(len(blocks))
    )
    first = next(iter(sets.values()))
    facts = {
        "blocks": {name: len(blocks) for name, blocks in sets.items()},
        "points": {name: int(blocks.counts().sum()) for name, blocks in sets.items()},
        "attributes": list(first.facts.limits),
        "classes": sorted({code for blocks in sets.values() for code in blocks.facts.codes}),
    }
    return Layout(facts, parts)


def _block(blocks: Any, index: int) -> None:
    """Read a block with all its attributes, and hold its mask to the codes that it has."""
    found = blocks.read(index, tuple(blocks.facts.limits))
    if isinstance(blocks, PctdSet):
        bits = np.unpackbits(blocks.table.masks[index], bitorder="little")
        absent = sorted({*np.flatnonzero(bits).tolist()} - {*found.codes.tolist()})
        if absent:
            raise FormatError(
                f"{blocks.file(index)}: the mask of block {blocks.name(index)} says that it has "
                f"points of class {absent[0]}, and it has none; export the points again."
            )


def _classified_points(path: Path) -> Layout:
    if is_legacy(path):
        return _blocks(open_legacy(path))
    return _blocks({name: open_pctd(folder) for name, folder in _folders(path).items()})


def _objects_in_points(path: Path) -> Layout:
    return _blocks({name: open_pcotd(folder) for name, folder in _folders(path).items()})


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "ChangeDetection": lambda path: _pairs(change_layout(path)),
    "Pix2Pix": lambda path: _pairs(pix2pix_layout(path)),
    "WNet_cGAN": lambda path: _pairs(wnet_layout(path)),
    "CycleGAN": lambda path: _pairs(*cyclegan_layouts(path)),
    "superres": lambda path: _pairs(superres_layout(path)[0]),
    "ImageCaptioning": _captions,
    "ObjectTracking": _tracks,
    "PSETAE": _series,
    "ClimaX": _climate,
    "PointCloud": _classified_points,
    "PointCloudOD": _objects_in_points,
}
"""Dataset type to what opens it."""


def describe_layout(path: Path, name: str) -> dict[str, Any]:
    """JSON: what a folder holds. Raises FormatError."""
    return {"format": name, "path": str(path), **LAYOUTS[name](path).facts}


def file_of(message: str, root: Path) -> Path:
    """The file or folder below ``root`` that a message begins with; ``root`` if there is none."""
    if not message.startswith(str(root)):
        return root
    ends = [end for end, letter in enumerate(f"{message} ") if letter in ",: "]
    starts = [Path(message[:end]) for end in ends if end > len(str(root))]
    # A path may hold blanks and commas itself: the longest one that is there counts.
    there = [path for path in starts if path.exists()]
    missing = [path for path in starts if path.suffix and path.parent.is_dir()]
    return next(iter([*reversed(there), *missing]), root)
