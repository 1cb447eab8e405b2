"""Videos frame by frame, through OpenCV; H.264 where the system can encode it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from geodl.base.errors import (
    DataWarning,
    NotSupportedError,
    OutputError,
    SourceError,
    SourceNotFoundError,
)
from geodl.base.packages import require

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".avi")
_H264_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv")
# A header that promises this many more frames than there are is no rounding.
_LOST_SHARE = 0.02
_USUAL_FPS = 25.0
_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox")


def opencv() -> Any:
    """The module cv2, without its messages on stderr: ours say what is wrong.

    Raises
    ------
    MissingPackageError
        OpenCV is not installed.
    """
    # Read when its FFmpeg is first used.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2 = require("cv2", "video")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class VideoReader:
    """The frames of a video file, one after the other.

    Parameters
    ----------
    path
        Anything that OpenCV decodes.

    Attributes
    ----------
    width, height
        Of the frames, px.
    fps
        Frames per second; 25 where the file does not say.
    frame_count
        As the header has it, often a guess; 0 where it does not say.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    SourceError
        It is no video that can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise SourceNotFoundError(f"There is no video file {self.path}.")
        cv2 = opencv()
        self._capture = cv2.VideoCapture(str(self.path))
        self.width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = rate if np.isfinite(rate) and 0 < rate < 1e4 else _USUAL_FPS
        self.frame_count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        if not self._capture.isOpened() or not self.width or not self.height:
            self._capture.release()
            raise SourceError(
                f"{self.path} cannot be decoded as a video; it is damaged, incomplete or of a kind "
                "that OpenCV does not know. Convert it to MP4, with 'ffmpeg -i FILE out.mp4' for "
                "example."
            )

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) each, blue, green, red.

        Raises
        ------
        SourceError
            Not one frame can be decoded.

        Warns
        -----
        DataWarning
            The video breaks off before its promised end.
        """
        count = 0
        while True:
            there, frame = self._capture.read()
            if not there:
                break
            count += 1
            yield frame
        if count == 0:
            raise SourceError(
                f"Not one frame of {self.path} can be decoded; the file is damaged. Fetch it "
                "again, or repair it with 'ffmpeg -i FILE -c copy out.mp4'."
            )
        if count < self.frame_count * (1 - _LOST_SHARE) - 1:
            warnings.warn(
                f"{self.path} breaks off after {count} of {self.frame_count} frames; what follows "
                "cannot be decoded.",
                DataWarning,
                stacklevel=2,
            )


class FrameWriter(Protocol):
    """Takes uint8 (H, W, 3) frames, blue, green, red."""

    def write(self, frame: np.ndarray) -> None: ...

    def __enter__(self) -> FrameWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_video_suffix(
    path: str | os.PathLike[str], name: str, suffixes: tuple[str, ...] = VIDEO_SUFFIXES
) -> Path:
    """The path, if its suffix is that of a video that can be written.

    Raises
    ------
    NotSupportedError
        It is not; lists those that are.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise NotSupportedError(
            f"{name}={str(path)!r}: this video is written as one of {', '.join(suffixes)}."
        )
    return path


def open_writer(path: Path, width: int, height: int, fps: float) -> FrameWriter:
    """A writer of H.264 where an encoder is there, else of MPEG-4 part 2.

    Parameters
    ----------
    path
        One of ``VIDEO_SUFFIXES``; the file is whole once the writer is left.

    Raises
    ------
    OutputError
        No writer can be opened.
    """
    if path.suffix.lower() in _H264_SUFFIXES:
        encoder = ffmpeg_encoder()
        if encoder is not None:
            return _FfmpegWriter(path, width, height, fps, encoder)
    codes = ("avc1", "mp4v") if path.suffix.lower() in _H264_SUFFIXES else ("XVID", "MJPG")
    cv2 = opencv()
    for code in codes:
        if code == "avc1" and not _opencv_has_h264():
            continue
        writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter.fourcc(*code), fps, (width, height), True
        )
        if writer.isOpened():
            return _OpencvWriter(writer, path)
        writer.release()
    raise OutputError(
        f"OpenCV cannot write the video {path} of {width} x {height} px; choose .mp4 or .avi."
    )


@cache
def ffmpeg_encoder() -> str | None:
    """The H.264 encoder of the ``ffmpeg`` program on the path, or None without either."""
    program = shutil.which("ffmpeg")
    if program is None:
        return None
    done = subprocess.run(
        [program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    )
    return next((name for name in _ENCODERS if f" {name} " in done.stdout), None)


@cache
def _opencv_has_h264() -> bool:
    cv2 = opencv()
    with tempfile.TemporaryDirectory() as folder:
        probe = cv2.VideoWriter(
            str(Path(folder) / "probe.mp4"), cv2.VideoWriter.fourcc(*"avc1"), 10.0, (64, 64), True
        )
        opened = bool(probe.isOpened())
        probe.release()
    return opened


class _OpencvWriter:
    def __init__(self, writer: Any, path: Path) -> None:
        self._writer, self._path = writer, path

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.release()
        if kind is None and not self._path.exists():
            raise OutputError(f"OpenCV wrote no video to {self._path}; the disk may be full.")


class _FfmpegWriter:
    """Frames through a pipe to the ``ffmpeg`` program."""

    def __init__(self, path: Path, width: int, height: int, fps: float, encoder: str) -> None:
        self._path = path
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the program
        command = [
            str(shutil.which("ffmpeg")), "-loglevel", "error", "-y",
            "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", f"{fps:.6f}",
            "-i", "-", "-an", "-c:v", encoder, "-pix_fmt", "yuv420p",
            # Colours have half the resolution: sides must be even.
            "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", str(path.absolute()),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors
        )

    def write(self, frame: np.ndarray) -> None:
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)  # type: ignore[union-attr]
        except BrokenPipeError:
            raise self._failed() from None

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        failed = self._process.wait() != 0
        if failed and kind is None:
            raise self._failed()
        self._errors.close()

    def _failed(self) -> OutputError:
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        return OutputError(
            f"ffmpeg cannot write {self._path}: {said[-1] if said else 'it gave no reason'}"
        )
