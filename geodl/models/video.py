"""Objects in a video: what ``predict_video`` of the detectors does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import ModelDataError, OptionError
from geodl.base.options import as_bool, as_int, as_path, check_known
from geodl.core.blocks import RasterBlock
from geodl.core.contract import ModelContract
from geodl.core.detections import Detections
from geodl.core.grid import GeoGrid
from geodl.core.plan import TilePlan
from geodl.io.staging import staged
from geodl.io.video import VideoReader, check_video_suffix, open_writer, opencv
from geodl.io.video_metadata import MULTIPLEX_SUFFIXES, MetadataTrack
from geodl.io.vmti import VmtiCsv, vmti_cell
from geodl.models.image_detection import ImageDetector
from geodl.ops.tracks import BoxTracker, TrackerOptions
from geodl.runtime.progress import Progress

# Windows of one frame that go through the network at once.
_MOST_WINDOWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualOptions:
    """How detections are drawn into a video.

    Parameters
    ----------
    show_scores, show_labels
        Write score and class above each box.
    thickness
        Of the lines, px.
    fontface
        One of OpenCV's Hershey fonts, 0..7, plus 16 for italics.
    color
        Blue, green and red of 0..255.
    """

    show_scores: bool = True
    show_labels: bool = True
    thickness: int = 2
    fontface: int = 0
    color: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        for name in ("show_scores", "show_labels"):
            object.__setattr__(self, name, as_bool(getattr(self, name), name))
        object.__setattr__(self, "thickness", as_int(self.thickness, "thickness", minimum=1))
        font = as_int(self.fontface, "fontface", minimum=0)
        if font not in {*range(8), *range(16, 24)}:
            raise OptionError(f"fontface={font} is none of OpenCV's fonts: 0..7, or 16..23.")
        object.__setattr__(self, "fontface", font)
        object.__setattr__(self, "color", _color(self.color))


def _color(value: Any) -> tuple[int, int, int]:
    parts = list(value) if isinstance(value, Sequence | np.ndarray) else []
    if len(parts) == 3 and not isinstance(value, str):
        blue, green, red = (as_int(part, "color", minimum=0) for part in parts)
        if max(blue, green, red) <= 255:
            return blue, green, red
    raise OptionError(f"color={value!r} is not (blue, green, red) with numbers of 0..255.")


@dataclass(frozen=True, kw_only=True)
class VideoRun:
    """One call of ``predict_video``, checked.

    Parameters
    ----------
    detector
        Network, task and thresholds.
    size_yx
        To which whole frames are scaled; None slides windows over them.
    source, metadata
        The video and its csv file.
    tracker
        Follows objects; None numbers them by class.
    drawn, multiplexed
        Videos to write, or None.
    """

    detector: ImageDetector
    source: Path
    metadata: Path
    size_yx: tuple[int, int] | None = None
    tracker: TrackerOptions | None = None
    visual: VisualOptions = field(default_factory=VisualOptions)
    drawn: Path | None = None
    multiplexed: Path | None = None

    def run(self) -> None:
        """Read the video once; every product is whole or not there."""
        with ExitStack() as stack:
            reader = stack.enter_context(VideoReader(self.source))
            table = stack.enter_context(VmtiCsv(self.metadata))
            frame_size = reader.width, reader.height
            writer = track = None
            if self.multiplexed is not None:
                track = stack.enter_context(MetadataTrack(self.source, self.multiplexed, reader))
            if self.drawn is not None:
                place = stack.enter_context(staged(self.drawn))
                writer = stack.enter_context(open_writer(place, *frame_size, reader.fps))
            progress = Progress(reader.frame_count, self.source.name, unit="frame")
            stack.callback(progress.close)
            for frame, found, numbers in self._frames(reader):
                said = table.write(vmti_cell(found.boxes, found.scores, numbers, reader.width))
                if track is not None:
                    track.write(frame, found, numbers, said)
                if writer is not None:
                    writer.write(self._draw(frame, found, numbers))
                progress.advance()

    def _frames(self, reader: VideoReader) -> Iterator[tuple[np.ndarray, Detections, list[int]]]:
        tracker = None if self.tracker is None else BoxTracker(self.tracker)
        by_class: dict[int, int] = {}
        for frame in reader:
            found = self._detect(frame)
            if tracker is not None:
                found, tracked = tracker.update(found)
                numbers = tracked.tolist()
            else:
                numbers = [by_class.setdefault(k, len(by_class) + 1) for k in found.labels.tolist()]
            yield frame, found, numbers

    def _detect(self, frame: np.ndarray) -> Detections:
        bands = list(self.detector.contract.extract_bands)
        pixels = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1)[bands])
        picture = RasterBlock(pixels, np.ones(pixels.shape[1:], bool))
        if self.size_yx is not None:
            return self.detector.whole(picture, self.size_yx).ordered()
        return self.detector.in_tiles(picture, self._windows(*pixels.shape[1:]))

    def _windows(self, height: int, width: int) -> int:
        """Windows at once: no more than a frame has."""
        tile = self.detector.contract.tile_px
        grid = GeoGrid(width=width, height=height, transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
        plan = TilePlan.make(grid, tile_px=tile, padding_px=tile // 4)
        return min(_MOST_WINDOWS, plan.tile_count)

    def _draw(self, frame: np.ndarray, found: Detections, numbers: Sequence[int]) -> np.ndarray:
        cv2, look = opencv(), self.visual
        names = self.detector.contract.classes.names
        drawn = frame.copy()
        for box, label, score, number in zip(
            found.boxes.round().astype(int).tolist(),
            found.labels.tolist(),
            found.scores.tolist(),
            numbers,
            strict=True,
        ):
            cv2.rectangle(drawn, tuple(box[:2]), tuple(box[2:]), look.color, look.thickness)
            words = [names[label - 1]] if look.show_labels else []
            words += [f"#{number}"] if self.tracker is not None and look.show_labels else []
            words += [f"{score:.2f}"] if look.show_scores else []
            if words:
                place = (box[0], max(box[1] - 4, 10))
                cv2.putText(
                    drawn, " ".join(words), place, look.fontface, 0.5, look.color, 1, cv2.LINE_AA
                )
        return drawn


def video_paths(
    source: str | os.PathLike[str],
    metadata_file: str | os.PathLike[str],
    drawn: str | os.PathLike[str] | None,
    multiplexed: str | os.PathLike[str] | None,
) -> tuple[Path, Path, Path]:
    """Metadata file and videos to write, none of them the input.

    Raises
    ------
    OptionError
        An output is the input, or the metadata file is no ``.csv``.
    NotSupportedError
        A suffix that no video has.
    """
    path = as_path(source, "input_video_path")
    table = as_path(metadata_file, "metadata_file")
    if table.suffix.lower() != ".csv":
        raise OptionError(f"metadata_file={str(table)!r} must end in .csv.")
    suffix = path.suffix if path.suffix.lower() in (".mp4", ".mov", ".m4v", ".avi") else ".mp4"
    one = drawn if drawn is not None else path.with_name(f"{path.stem}_prediction{suffix}")
    two = multiplexed if multiplexed is not None else path.with_name(f"{path.stem}_multiplex.MOV")
    outputs = (
        check_video_suffix(one, "output_file_path"),
        check_video_suffix(two, "multiplex_file_path", MULTIPLEX_SUFFIXES),
    )
    for output in outputs:
        if output.absolute() == path.absolute():
            raise OptionError(f"{output} is the input video; give another path to write to.")
    return table, *outputs


def tracker_options(given: Mapping[str, Any]) -> TrackerOptions:
    """Checked by name and value; what is missing has its default."""
    check_known(given, TrackerOptions.__dataclass_fields__, "tracker_options")
    return TrackerOptions(**given)


def visual_options(given: Mapping[str, Any]) -> VisualOptions:
    """Checked by name and value; what is missing has its default."""
    check_known(given, VisualOptions.__dataclass_fields__, "visual_options")
    return VisualOptions(**given)


def check_rgb(contract: ModelContract) -> None:
    """Refuse models that a video's frames cannot feed.

    Raises
    ------
    ModelDataError
        The model takes other bands than red, green and blue.
    """
    bands = contract.extract_bands
    if len(bands) != 3 or max(bands) > 2 or contract.dtype != "uint8":
        raise ModelDataError(
            f"{contract.model_name} takes the bands {[band + 1 for band in bands]} of "
            f"{contract.dtype} images; videos have red, green and blue of 8 bits. Train it with "
            "extract_bands=[1, 2, 3] on such chips."
        )
