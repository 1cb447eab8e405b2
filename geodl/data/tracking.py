"""ObjectTracking: the same object in two frames of a video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geodl.base.errors import FormatError
from geodl.base.options import as_float
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX, Normalization
from geodl.data.builder import DEFAULT_NORM_SHARE
from geodl.data.figure import ShownFigure
from geodl.data.normalize import compute_statistics, is_plain_rgb, sample_share
from geodl.data.paired import loader_limit
from geodl.data.request import DataRequest
from geodl.data.sample_data import (
    SampleData,
    common_fields,
    one_folder,
    refuse_arguments,
    refuse_transforms,
)
from geodl.data.split import random_split
from geodl.data.store import ChipStore, LoadedChip
from geodl.formats.images import open_image, read_class_raster, read_image
from geodl.formats.tracks import Frame, Track, TrackLayout, open_tracks

_BATCH = 16


@dataclass(kw_only=True, eq=False, repr=False)
class TrackData(SampleData):
    """Objects in videos.

    Attributes
    ----------
    bands, dtype
        Of the frames.
    normalization
        For these bands.
    sequences, tracks
        Numbers of videos, and of objects in them.
    """

    bands: int
    dtype: str
    normalization: Normalization
    statistics_name: str
    sequences: int
    tracks: int

    def draw(self, rows: int) -> ShownFigure:
        from geodl.data.draw_samples import draw_tracks

        return draw_tracks(self, rows)

    def facts(self) -> list[tuple[str, str]]:
        return [
            ("frames", f"{self.bands} x {self.dtype}, normalised by {self.statistics_name}"),
            ("tracks", f"{self.tracks} objects in {self.sequences} sequences"),
        ]


class FrameLoader:
    """Reads a frame and the numbers of the objects in it for the store. Picklable."""

    def __init__(self, bands: int) -> None:
        self.bands = bands

    def __call__(self, frame: Frame) -> LoadedChip:
        image = read_image(frame.image)
        if len(image.data) != self.bands:
            raise FormatError(
                f"{frame.image} has {len(image.data)} bands; the first frame has {self.bands}."
            )
        numbers = read_class_raster(frame.mask)
        if numbers.shape != image.mask.shape:
            raise FormatError(
                f"{frame.mask} has {numbers.shape[1]} x {numbers.shape[0]} pixels, its frame "
                f"{image.mask.shape[1]} x {image.mask.shape[0]}."
            )
        return LoadedChip(image.data, None if image.mask.all() else image.mask, numbers)


class TrackDataset(Dataset[dict[str, Any]]):
    """Objects of one set in pairs of frames, see :class:`ObjectTracking`.

    Parameters
    ----------
    store
        Frames, by position.
    tracks
        Number of the object and the positions of its frames.
    names
        One per track.
    draws
        Whether the second frame is drawn by chance; else it is the next one.
    """

    def __init__(
        self,
        store: ChipStore,
        tracks: list[tuple[int, list[int]]],
        names: list[str],
        normalization: Normalization,
        *,
        draws: bool,
    ) -> None:
        self.store, self.tracks, self.names = store, tracks, names
        self.normalization = normalization
        self.draws = draws
        self.places = [(t, i) for t, (_, frames) in enumerate(tracks) for i in range(len(frames))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        position, seed = index if isinstance(index, tuple) else (int(index), None)
        track, first = self.places[position]
        number, frames = self.tracks[track]
        second = self._second(first, len(frames), seed)
        image, target = self._frame(frames[first], number)
        image_b, target_b = self._frame(frames[second], number)
        return {
            "image": image,
            "image_b": image_b,
            "target": target,
            "target_b": target_b,
            "box": bounds(target),
            "box_b": bounds(target_b),
            "name": f"{self.names[track]}/{self.store.chips[frames[first]].name}",
            "name_b": f"{self.names[track]}/{self.store.chips[frames[second]].name}",
        }

    def _second(self, first: int, count: int, seed: int | None) -> int:
        if not self.draws:
            return first + 1 if first + 1 < count else first - 1
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        step = 1 + int(torch.randint(count - 1, (), generator=generator))
        return (first + step) % count

    def _frame(self, position: int, number: int) -> tuple[Tensor, Tensor]:
        chip = self.store[position]
        target = (chip.target == number).astype(np.int64)
        if chip.valid is not None:
            target[~chip.valid] = IGNORE_INDEX
        image = self.normalization.apply(chip.data, chip.valid)
        return torch.from_numpy(image), torch.from_numpy(target)


def bounds(target: Tensor) -> Tensor:
    """float32 (4,) x0, y0, x1, y1 in pixel edges of the pixels that are 1."""
    rows, columns = torch.nonzero(target == 1, as_tuple=True)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return torch.stack(edges).float()


class ObjectTracking:
    """An object in two frames.

    Items: ``image`` and ``image_b`` float32 (C, H, W), a frame and another one of the same
    sequence, normalised by ``normalization``; ``target`` and ``target_b`` int64 (H, W), 1 where
    the object is, 0 elsewhere, ``IGNORE_INDEX`` without data; ``box`` and ``box_b`` float32 (4,)
    x0, y0, x1, y1, the bounds of these pixels; ``name`` and ``name_b``, sequence/object/frame.
    There is an item for each object and frame; in training the second frame is drawn by chance,
    in validation it is the next. Frames keep their size (``chip_size`` does not count), so
    batches of frames of several sizes hold lists. Nothing is augmented: trackers crop around the
    object.

    ``kind`` is ``tracks``. Whole sequences validate. Objects of 1000 pixels or fewer in a frame
    are passed over there.
    """

    keywords = frozenset({"num_workers", "norm_pct"})
    kind: ClassVar[str] = "tracks"

    def build(self, request: DataRequest) -> TrackData:
        """Open the folder and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request)
        refuse_transforms(request)
        layout = open_tracks(one_folder(request))
        split = random_split(layout.sequences, request.val_split_pct, request.seed)
        chosen = {layout.sequences[i] for i in split.valid}
        frames = list(dict.fromkeys(f for track in layout.tracks for f in track.frames))
        with open_image(frames[0].image) as dataset:
            bands, dtype = dataset.count, dataset.dtypes[0]
        normalization, source = _normalization(layout, frames, bands, dtype, request)
        store = ChipStore(frames, FrameLoader(bands), loader_limit(request))
        place = {frame: i for i, frame in enumerate(frames)}
        make = partial(_dataset, store, place, normalization)
        parts = [
            [t for t in layout.tracks if (t.sequence in chosen) is held] for held in (False, True)
        ]
        train = make(parts[0], draws=request.transforms is not False)
        valid = make(parts[1], draws=False)
        return TrackData(
            **common_fields(request, train, valid, _BATCH),
            kind=self.kind,
            class_table=ClassTable(()),
            split="sequence",
            bands=bands,
            dtype=dtype,
            normalization=normalization,
            statistics_name=source,
            sequences=len(layout.sequences),
            tracks=len(layout.tracks),
        )


def _dataset(
    store: ChipStore,
    place: dict[Frame, int],
    normalization: Normalization,
    tracks: list[Track],
    *,
    draws: bool,
) -> TrackDataset:
    return TrackDataset(
        store,
        [(track.number, [place[frame] for frame in track.frames]) for track in tracks],
        [f"{track.sequence}/{track.number}" for track in tracks],
        normalization,
        draws=draws,
    )


def _normalization(
    layout: TrackLayout, frames: list[Frame], bands: int, dtype: str, request: DataRequest
) -> tuple[Normalization, str]:
    if is_plain_rgb(bands, dtype, (), None):
        return Normalization.imagenet(), "ImageNet statistics"
    given = request.options.get("norm_pct", DEFAULT_NORM_SHARE)
    share = as_float(given, "norm_pct", minimum=0, maximum=1)
    chosen = sample_share([str(frame.image) for frame in frames], share, request.seed)
    images = (read_image(frames[i].image) for i in chosen)
    pixels = ((image.data, image.mask) for image in images)
    found = compute_statistics(pixels, bands, str(layout.path))
    return found.normalization(), f"statistics of {len(chosen)} frames"
