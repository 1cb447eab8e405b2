"""A video with its detections inside: the multiplexed output of ``predict_video``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from geodl.core.detections import Detections
from geodl.io.klv import frame_packet
from geodl.io.movie_boxes import add_track, is_movie
from geodl.io.staging import staged
from geodl.io.video import VideoReader, open_writer

MULTIPLEX_SUFFIXES = (".mov", ".mp4", ".m4v")
"""Containers that take a track of metadata."""


class MetadataTrack:
    """Gathers what is known of each frame; at the end writes the video with it as a track.

    The pictures of an MP4 or MOV are taken over as they are; other videos are encoded anew.
    Packets wait in a temporary file, so memory does not grow with the video.

    Parameters
    ----------
    source
        The video.
    target
        ``.mov`` or ``.mp4``, written when the block ends well.
    reader
        Of the source: size and frames per second.
    """

    def __init__(self, source: Path, target: Path, reader: VideoReader) -> None:
        self._source, self._target, self._reader = source, target, reader
        self._sizes: list[int] = []
        self._writer: Any = None

    def __enter__(self) -> MetadataTrack:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geodl-klv-")))
            self._samples = folder / "samples"
            self._packets = stack.enter_context(open(self._samples, "wb"))
            self._place = stack.enter_context(staged(self._target))
            self._movie = self._source
            if not is_movie(self._source):
                self._movie = folder / "pictures.mp4"
                size = self._reader.width, self._reader.height
                self._writer = open_writer(self._movie, *size, self._reader.fps)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if self._writer is not None:
                self._writer.__exit__(*error)
            self._packets.close()
            if error[0] is None:
                each = 1 / self._reader.fps
                add_track(self._movie, self._place, self._samples, self._sizes, each)
        except BaseException as late:
            self._stack.__exit__(type(late), late, late.__traceback__)
            raise
        self._stack.__exit__(*error)

    def write(
        self,
        frame: np.ndarray,
        found: Detections,
        numbers: Sequence[int],
        said: Mapping[str, str],
    ) -> None:
        """Take the next frame, its objects with their numbers, and its row of the csv file."""
        if self._writer is not None:
            self._writer.write(frame)
        number = len(self._sizes)
        size_xy = self._reader.width, self._reader.height
        packet = frame_packet(
            number, number / self._reader.fps, found.boxes, found.scores, numbers, size_xy, said
        )
        self._packets.write(packet)
        self._sizes.append(len(packet))
