"""Videos with a mask per frame and object: YouTube-VOS, and exports of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import DataError, FormatError
from geodl.base.files import read_json
from geodl.formats.image_sets import find_folder, list_files, need_folder
from geodl.formats.images import read_class_raster
from geodl.formats.inference import sub_folders

META = "meta.json"
# Objects of this many pixels or fewer are too small to follow.
SMALLEST_PX = 1000
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """An image and the mask of the objects in it."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class Track:
    """One object of a sequence in the frames where it is large enough, in their order."""

    sequence: str
    number: int
    frames: tuple[Frame, ...]


@dataclass(frozen=True, kw_only=True)
class TrackLayout:
    """The tracks of a folder; those with fewer than two frames are left out."""

    path: Path
    sequences: tuple[str, ...]
    tracks: tuple[Track, ...] = field(repr=False)


def open_tracks(path: Path) -> TrackLayout:
    """The tracks of a folder; reads every mask once.

    Raises
    ------
    FormatError
        Fewer than two sequences, frames or masks without their counterpart, numbers that
        contradict ``meta.json``; names the file.
    DataError
        No object is large enough in two frames.
    """
    if find_folder(path, "JPEGImages") is not None:
        frames, listed = _youtube(path)
    else:
        frames, listed = _exported(path), None
    if len(frames) < 2:
        raise FormatError(
            f"{path} has {len(frames)} sequences with masks; at least two are needed, one of them "
            "to validate."
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = list(pool.map(_sizes, [f for several in frames.values() for f in several]))
    by_frame = iter(sizes)
    tracks: list[Track] = []
    for sequence, several in frames.items():
        counts = [next(by_frame) for _ in several]
        _check_numbers(path, sequence, several, counts, listed)
        tracks += _tracks(sequence, several, counts)
    if not tracks:
        raise DataError(
            f"No object of {path} has more than {SMALLEST_PX} pixels in two frames; larger "
            "objects or frames are needed."
        )
    names = tuple(dict.fromkeys(track.sequence for track in tracks))
    return TrackLayout(path=path, sequences=names, tracks=tuple(tracks))


def _sizes(frame: Frame) -> dict[int, int]:
    """Pixels of each object in a mask."""
    numbers, counts = np.unique(read_class_raster(frame.mask), return_counts=True)
    return {n: c for n, c in zip(numbers.tolist(), counts.tolist(), strict=True) if n != 0}


def _tracks(
    sequence: str, frames: Sequence[Frame], counts: Sequence[dict[int, int]]
) -> list[Track]:
    numbers = sorted({number for found in counts for number in found})
    tracks = []
    for number in numbers:
        kept = tuple(
            frame
            for frame, found in zip(frames, counts, strict=True)
            if found.get(number, 0) > SMALLEST_PX
        )
        if len(kept) > 1:
            tracks.append(Track(sequence, number, kept))
    return tracks


def _check_numbers(
    path: Path,
    sequence: str,
    frames: Sequence[Frame],
    counts: Sequence[dict[int, int]],
    listed: dict[str, dict[int, set[str]]] | None,
) -> None:
    """Masks of YouTube-VOS hold the objects that its list names, and no other."""
    if listed is None:
        return
    known = listed[sequence]
    for frame, found in zip(frames, counts, strict=True):
        strange = sorted(found.keys() - known.keys())
        if strange:
            raise FormatError(
                f"{frame.mask} holds the object {strange[0]}, which {path / META} does not list "
                f"for {sequence}."
            )


def _youtube(path: Path) -> tuple[dict[str, list[Frame]], dict[str, dict[int, set[str]]]]:
    """Frames and listed objects of each video that images, masks and ``meta.json`` have."""
    images, masks = need_folder(path, "JPEGImages"), need_folder(path, "Annotations")
    listed = _listed(path / META)
    frames: dict[str, list[Frame]] = {}
    for folder in sub_folders(masks):
        if folder.name not in listed:
            continue
        if not (images / folder.name).is_dir():
            raise FormatError(f"{folder} has no counterpart in {images}.")
        pictures = list_files(images / folder.name)
        found = list_files(folder)
        frames[folder.name] = [_frame(name, pictures, mask) for name, mask in found.items()]
        for number, names in listed[folder.name].items():
            alone = sorted(names - pictures.keys())
            if alone:
                raise FormatError(
                    f"{path / META}: object {number} of {folder.name} is in frame {alone[0]!r}, "
                    f"which {images / folder.name} has not."
                )
    return frames, listed


def _frame(name: str, images: dict[str, Path], mask: Path) -> Frame:
    if name not in images:
        raise FormatError(f"{mask} has no image {name!r}; each mask needs its frame.")
    return Frame(name, images[name], mask)


def _listed(path: Path) -> dict[str, dict[int, set[str]]]:
    """Video to object number to the names of its frames."""
    if not path.is_file():
        raise FormatError(f"{path} is missing; it lists the objects of the videos.")
    value = read_json(path)
    videos = value.get("videos") if isinstance(value, dict) else None
    if not isinstance(videos, dict) or not videos:
        raise FormatError(f"{path} has no JSON object 'videos' with entries.")
    return {name: _objects(video, f"{path}: {name}") for name, video in videos.items()}


def _objects(video: Any, where: str) -> dict[int, set[str]]:
    objects = video.get("objects") if isinstance(video, dict) else None
    found: dict[int, set[str]] = {}
    for number, entry in objects.items() if isinstance(objects, dict) else ():
        frames = entry.get("frames") if isinstance(entry, dict) else None
        if not str(number).isdigit() or not isinstance(frames, list):
            raise FormatError(f"{where}: the object {number!r} needs a number and 'frames'.")
        found[int(number)] = set(map(str, frames))
    if not found:
        raise FormatError(f"{where} lists no 'objects'.")
    return found


def _exported(path: Path) -> dict[str, list[Frame]]:
    """Frames of each sequence folder below ``labels``; their names are numbers."""
    images = list_files(need_folder(path, "images"))
    frames: dict[str, list[Frame]] = {}
    for folder in sub_folders(need_folder(path, "labels")):
        if not any(folder.iterdir()):
            continue
        found = list_files(folder)
        wrong = [name for name in found if not name.isdigit()]
        if wrong:
            raise FormatError(f"{found[wrong[0]]}: the names of frames must be whole numbers.")
        ordered = sorted(found, key=int)
        frames[folder.name] = [_frame(name, images, found[name]) for name in ordered]
    return frames
