"""Boxes of successive frames joined to tracks by their overlap."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from geodl.base.errors import DataError
from geodl.base.options import as_float, as_int
from geodl.core.detections import Detections
from geodl.ops.boxes import iou_matrix

# Share of a newly seen step in a track's speed: evens out boxes that shake.
_NEWS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerOptions:
    """When detections belong to a track, and when tracks begin and end.

    Parameters
    ----------
    assignment_iou_thrd
        Least IoU of a detection with the place where a track is expected, 0..1.
    vanish_frames
        Frames in a row without the object after which its track is dropped.
    detect_frames
        Frames in a row with the object after which its track begins; from that frame on it is
        reported.
    """

    assignment_iou_thrd: float = 0.3
    vanish_frames: int = 40
    detect_frames: int = 10

    def __post_init__(self) -> None:
        share = as_float(self.assignment_iou_thrd, "assignment_iou_thrd", minimum=0.0, maximum=1.0)
        object.__setattr__(self, "assignment_iou_thrd", share)
        for name in ("vanish_frames", "detect_frames"):
            object.__setattr__(self, name, as_int(getattr(self, name), name, minimum=1))


@dataclass(slots=True)
class _Track:
    box: np.ndarray
    label: int
    number: int = 0
    """0 until the track begins."""
    seen: int = 1
    """Frames in a row."""
    absent: int = 0
    speed_xy: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def expected(self) -> np.ndarray:
        """float64 (4,): the box in the coming frame, at constant speed."""
        box: np.ndarray = self.box + np.tile(self.speed_xy, 2) * (self.absent + 1)
        return box

    def meet(self, box: np.ndarray) -> None:
        step = (_centre(box) - _centre(self.box)) / (self.absent + 1)
        news = 1.0 if self.seen == 1 and not self.number else _NEWS
        self.speed_xy = news * step + (1 - news) * self.speed_xy
        self.box, self.absent = box, 0
        self.seen += 1


class BoxTracker:
    """Gives objects numbers that they keep from frame to frame.

    Each frame's detections are assigned to the tracks so that the sum of IoU is largest (the
    Hungarian method, Kuhn 1955), within each class. A track is looked for where it would be at
    constant speed, as Bewley et al. 2016 (1602.00763) do, so that objects keep their number while
    the camera pans and while they are hidden.

    Parameters
    ----------
    options
        When tracks begin and end.
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        self.options = options or TrackerOptions()
        self._tracks: list[_Track] = []
        self._begun = 0

    def update(self, found: Detections) -> tuple[Detections, np.ndarray]:
        """Take the detections of the next frame.

        Parameters
        ----------
        found
            In pixels of the frame.

        Returns
        -------
        Those of them that belong to a track, and int64 (N,) its number, from 1 in the order in
        which tracks began.

        Raises
        ------
        DataError
            A box that is not finite.
        """
        if not np.isfinite(found.boxes).all():
            raise DataError("a box to be tracked is not finite; the model's output is broken")
        numbers = np.zeros(len(found), np.int64)
        assigned = self._assign(found)
        for track, place in zip(self._tracks, assigned.tolist(), strict=True):
            if place < 0:
                track.absent += 1
                track.seen = 0
                continue
            track.meet(found.boxes[place])
            numbers[place] = self._number(track)
        self._tracks = [t for t in self._tracks if self._lives(t)]
        for place in np.setdiff1d(np.arange(len(found)), assigned).tolist():
            track = _Track(found.boxes[place], int(found.labels[place]))
            self._tracks.append(track)
            numbers[place] = self._number(track)
        tracked = numbers > 0
        return found.take(tracked), numbers[tracked]

    def _assign(self, found: Detections) -> np.ndarray:
        """int64 (T,): position of the detection of each track, or -1."""
        assigned = np.full(len(self._tracks), -1, np.int64)
        if not len(self._tracks) or not len(found):
            return assigned
        expected = np.stack([track.expected() for track in self._tracks])
        labels = np.array([track.label for track in self._tracks])
        overlap = iou_matrix(expected, found.boxes)
        overlap[labels[:, None] != found.labels[None]] = 0.0
        allowed = (overlap >= self.options.assignment_iou_thrd) & (overlap > 0)
        rows, columns = linear_sum_assignment(np.where(allowed, overlap, 0.0), maximize=True)
        good = allowed[rows, columns]
        assigned[rows[good]] = columns[good]
        return assigned

    def _number(self, track: _Track) -> int:
        if not track.number and track.seen >= self.options.detect_frames:
            self._begun += 1
            track.number = self._begun
        return track.number

    def _lives(self, track: _Track) -> bool:
        """A track that never began ends with the first frame that lacks it."""
        if not track.number:
            return track.absent == 0
        return track.absent < self.options.vanish_frames


def _centre(box: np.ndarray) -> np.ndarray:
    centre: np.ndarray = (box[:2] + box[2:]) / 2
    return centre
