"""Image files of a folder, and where a camera says that it took them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import GPS, IFD

from geodl.base.errors import SourceNotFoundError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tiff", ".tif", ".bmp")


def image_files(
    folder: str | os.PathLike[str], suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> list[Path]:
    """The image files right in a folder, by name.

    Raises
    ------
    SourceNotFoundError
        There is no such folder, or no image in it.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise SourceNotFoundError(f"There is no folder {path}.")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    if not found:
        raise SourceNotFoundError(f"{path} holds no image ({', '.join(suffixes)}).")
    return found


def photograph_place(path: Path) -> tuple[float, float] | None:
    """Longitude and latitude in degrees (WGS 84) from the EXIF tags; None where they state none."""
    try:
        with Image.open(path) as image:
            tags = image.getexif().get_ifd(IFD.GPSInfo)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None
    longitude = _degrees(tags.get(GPS.GPSLongitude), tags.get(GPS.GPSLongitudeRef), "W", 180.0)
    latitude = _degrees(tags.get(GPS.GPSLatitude), tags.get(GPS.GPSLatitudeRef), "S", 90.0)
    return None if longitude is None or latitude is None else (longitude, latitude)


def _degrees(parts: Any, side: Any, negative: str, limit: float) -> float | None:
    """Degrees from degrees, minutes and seconds; None where they are none."""
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    text = side.decode("ascii", "replace") if isinstance(side, bytes) else str(side or "")
    value = degrees + minutes / 60 + seconds / 3600
    if not value <= limit:
        return None
    return -value if text.strip("\x00 ").upper() == negative else value
