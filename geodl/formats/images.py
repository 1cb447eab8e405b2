"""Chip images: TIFF, PNG, JPEG and MRF with their world files and CRS."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import RawIOBase
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.env import getenv, hasenv
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from geodl.base.errors import FormatError, OptionError, OutputError
from geodl.core.grid import GeoGrid
from geodl.formats.base import ChipFolder, ChipImage, ChipRef
from geodl.io.handles import unreferenced_allowed

SUFFIXES = {"TIFF": ".tif", "PNG": ".png", "JPEG": ".jpg", "MRF": ".mrf"}
WORLD_SUFFIXES = {".tif": ".tfw", ".png": ".pgw", ".jpg": ".jgw"}
IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".mrf", ".jp2", ".bmp"})

_HELD = frozenset({"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"})
# zlib's level 3 takes two thirds of the time of its default 6 for 10 % larger files.
_PNG_LEVEL = 3
# Above 90 JPEG files grow fast and the eye sees no gain.
_JPEG_QUALITY = 90
# Masks lie inside their TIFF; side files are written here rather than by GDAL.
_IMAGE_OPTIONS = {"GDAL_TIFF_INTERNAL_MASK": True, "GDAL_PAM_ENABLED": False}
_CRS_KEPT = 16
_MRF_PARTS = (".idx", ".pzp", ".ppg", ".lrc", ".til", ".dat")


def check_holds(chip_format: str, bands: int, dtype: str) -> None:
    """Refuse pixels that a chip format cannot hold as they are.

    Raises
    ------
    OptionError
        Names TIFF, which holds everything else.
    """
    limits = {
        "PNG": (dtype in ("uint8", "uint16") and bands <= 4, "1 to 4 bands of uint8 or uint16"),
        "JPEG": (dtype == "uint8" and bands in (1, 3), "1 or 3 bands of uint8"),
        "TIFF": (dtype in _HELD, f"bands of {', '.join(sorted(_HELD))}"),
        "MRF": (dtype in _HELD - {"int8"}, f"bands of {', '.join(sorted(_HELD - {'int8'}))}"),
    }
    fits, holds = limits[chip_format]
    if fits:
        return
    remedy = (
        "Use chip_format='TIFF', which holds it unchanged, or select bands with "
        "geodl.functions.extract_band."
        if chip_format != "TIFF"
        else "Convert the raster first."
    )
    raise OptionError(
        f"chip_format {chip_format!r} holds {holds}; the raster has {bands} bands of {dtype}. "
        f"{remedy}"
    )


# -- reading ----------------------------------------------------------------------------------


@contextmanager
def open_image(path: Path) -> Iterator[DatasetReader]:
    """A handle of one chip file; what goes wrong inside becomes a FormatError with its name."""
    try:
        # Folders hold thousands of chips: GDAL looks for side files by name, not by listing.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
            with unreferenced_allowed():
                dataset = rasterio.open(path)
            with dataset:
                yield dataset
    except (RasterioError, OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        if not path.exists():
            raise FormatError(
                f"The chip file {path} is missing; export the chips again, or remove its line "
                "from map.txt."
            ) from error
        raise FormatError(
            f"{path} cannot be read as an image ({error.__cause__ or error}); it may be truncated "
            "or damaged. Export the chip again, or remove it."
        ) from error


def read_image(path: str | os.PathLike[str]) -> ChipImage:
    """Read all bands of a chip, and where it has data.

    Every band is data, a fourth one too: chips know no alpha. The mask comes from the nodata
    value, from NaN, or from a mask band inside the file.

    Raises
    ------
    FormatError
        Missing or unreadable; names the file.
    """
    with open_image(Path(path)) as dataset:
        data = dataset.read()
        nodata = dataset.nodata
        flags = dataset.mask_flag_enums[0]
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
            return ChipImage(data, dataset.dataset_mask() > 0)
    return ChipImage(data, _has_data(data, nodata))


def read_class_raster(path: Path) -> np.ndarray:
    """int (H, W) of a label raster; its nodata value becomes 0.

    Raises
    ------
    FormatError
        Not one band of whole numbers; names the file.
    """
    with open_image(path) as dataset:
        dtype = np.dtype(dataset.dtypes[0])
        if dataset.count != 1 or dtype.kind not in "iu":
            raise FormatError(
                f"{path} has {dataset.count} bands of {dtype}; a label is one band of "
                "whole numbers."
            )
        values = dataset.read(1)
        nodata = dataset.nodata
    if nodata is not None and np.isfinite(nodata) and nodata != 0:
        values = np.where(values == nodata, values.dtype.type(0), values)
    return np.asarray(values)


def chip_size(ref: ChipRef, folder: ChipFolder) -> tuple[int, int]:
    """Width and height of a chip: the export's, or in a plain folder the image's own."""
    if folder.fixed_size:
        return folder.tile_size
    with open_image(ref.image) as dataset:
        return dataset.width, dataset.height


def _has_data(data: np.ndarray, nodata: float | None) -> np.ndarray:
    """bool (H, W): at least one band is neither nodata nor NaN."""
    known = np.ones((1, *data.shape[1:]), bool)
    if data.dtype.kind == "f":
        known = ~np.isnan(data)
    if nodata is not None and _fits(nodata, data.dtype):
        known = known & (data != data.dtype.type(nodata))
    return np.asarray(known.any(axis=0))


def _fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return not np.isnan(nodata)
    info = np.iinfo(dtype)
    return float(nodata).is_integer() and info.min <= nodata <= info.max


# -- writing ----------------------------------------------------------------------------------


def write_image(
    path: Path,
    data: np.ndarray,
    *,
    chip_format: str,
    grid: GeoGrid,
    nodata: float | None = None,
    mask: np.ndarray | None = None,
) -> None:
    """Write a chip with its side files, the image last; each file is whole or not there.

    Parameters
    ----------
    path
        With the suffix of ``chip_format``.
    data
        (C, H, W) that ``chip_format`` holds, see :func:`check_holds`.
    grid
        Size, transform and CRS of the chip.
    nodata
        Value of pixels without data.
    mask
        bool (H, W), kept inside a TIFF where ``nodata`` is None; other formats have no room.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    world = WORLD_SUFFIXES.get(path.suffix)
    if world is not None:
        place(path.with_suffix(world), world_file(grid).encode())
    if chip_format in ("PNG", "JPEG"):
        # JPEG blurs the edge of the nodata area: its nodata value would tell nothing.
        text = _pam(grid, nodata if chip_format == "PNG" else None, len(data))
        if text:
            place(path.with_name(path.name + ".aux.xml"), text.encode())
    if chip_format == "MRF":
        _write_mrf(path, data, grid, nodata)
    else:
        place(path, encode(data, chip_format, grid, nodata, mask))


def image_environment() -> AbstractContextManager[Any]:
    """GDAL's options for images; :func:`encode` takes a third less when many share one."""
    if hasenv() and _IMAGE_OPTIONS.items() <= getenv().items():
        return nullcontext()
    return rasterio.Env(**_IMAGE_OPTIONS)


def encode(
    data: np.ndarray,
    chip_format: str,
    grid: GeoGrid,
    nodata: float | None = None,
    mask: np.ndarray | None = None,
    **options: Any,
) -> bytes:
    """The bytes of a TIFF, PNG or JPEG file; ``options`` are GDAL's of the driver."""
    bands, height, width = data.shape
    profile: dict[str, Any] = {
        "driver": "GTiff" if chip_format == "TIFF" else chip_format,
        "width": width,
        "height": height,
        "count": bands,
        "dtype": data.dtype.name,
        "transform": grid.affine,
    }
    if chip_format == "TIFF":
        profile |= {"crs": _crs(grid.crs), "nodata": nodata}
        profile |= {"interleave": "band", "photometric": "RGB" if bands == 3 else "MINISBLACK"}
        if bands in (2, 4):
            profile["alpha"] = "NO"
    elif chip_format == "PNG":
        profile |= {"zlevel": _PNG_LEVEL}
    else:
        profile |= {"quality": _JPEG_QUALITY}
    keep_mask = chip_format == "TIFF" and nodata is None and mask is not None and not mask.all()
    with image_environment(), MemoryFile() as memory:
        with _creating(grid):
            dataset = memory.open(**profile, **options)
        with dataset:
            dataset.write(data)
            if keep_mask:
                dataset.write_mask(mask)
        return memory.read()


def _creating(grid: GeoGrid) -> AbstractContextManager[None]:
    """Only chips in pixel space make rasterio warn; others need no care for other threads."""
    a, b, c, d, e, f = grid.transform
    plain = (a, b, c, d, abs(e), f) == (1, 0, 0, 0, 1, 0)
    return unreferenced_allowed() if plain else nullcontext()


def _write_mrf(path: Path, data: np.ndarray, grid: GeoGrid, nodata: float | None) -> None:
    """MRF is an XML file beside an index and a data file, named by the stem; the XML goes last."""
    bands, height, width = data.shape
    scratch = path.parent / f".{path.stem}.{os.getpid()}-{threading.get_ident()}.part"
    scratch.mkdir()
    try:
        with _creating(grid):
            dataset = rasterio.open(
                scratch / path.name, "w", driver="MRF", width=width, height=height, count=bands,
                dtype=data.dtype.name, transform=grid.affine, crs=_crs(grid.crs), nodata=nodata,
                compress="DEFLATE", blocksize=max(width, height), interleave="BAND",
            )  # fmt: skip
        with dataset:
            dataset.write(data)
        for part in sorted(scratch.iterdir(), key=lambda file: file.suffix == ".mrf"):
            os.replace(part, path.parent / part.name)
    finally:
        for left in scratch.iterdir():
            left.unlink()
        scratch.rmdir()


def place(path: Path, content: bytes) -> None:
    """Put a file into its place whole. Not synced to disk: a chip lost by a power cut is rewritten.

    The temporary name starts with a dot and ends in ``.part``.
    """
    # Chips are many and small: pathlib would take longer here than the system does.
    folder, name = os.path.split(path)
    temporary = f"{folder}{os.sep}.{name}.{os.getpid()}-{threading.get_ident()}.part"
    try:
        with open(temporary, "wb", buffering=0) as file:
            _write_all(file, content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_all(file: RawIOBase, content: bytes) -> None:
    """An unbuffered file may take less than it is given, on a full disk for example."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]


def image_files(path: Path) -> list[Path]:
    """The files that :func:`write_image` may have written for one image."""
    files = [path, path.with_name(path.name + ".aux.xml")]
    world = WORLD_SUFFIXES.get(path.suffix)
    if world is not None:
        files.append(path.with_suffix(world))
    if path.suffix == ".mrf":
        files += [path.with_suffix(part) for part in _MRF_PARTS]
    return files


def world_file(grid: GeoGrid) -> str:
    """The six lines of a world file: the transform to the centre of the upper left pixel."""
    a, b, _, d, e, _ = grid.transform
    x, y = grid.affine @ (0.5, 0.5)
    return "".join(f"{_plain(number)}\n" for number in (a, d, b, e, x, y))


def _plain(number: float) -> str:
    """Ten decimals as ArcGIS writes; more where a cell size in degrees would lose digits."""
    number = number + 0.0  # -0.0 becomes 0.0
    text = f"{number:.10f}"
    if abs(float(text) - number) <= 1e-13 * abs(number):
        return text
    return np.format_float_positional(number, unique=True, trim="0")


def _pam(grid: GeoGrid, nodata: float | None, bands: int) -> str:
    """GDAL's side file for what PNG and JPEG cannot say: the CRS and the nodata value."""
    parts = []
    if grid.crs is not None:
        parts.append(f"  <SRS>{escape(_esri_wkt(grid.crs))}</SRS>\n")
    if nodata is not None:
        parts += [
            f'  <PAMRasterBand band="{band}">\n    <NoDataValue>{nodata:.17g}</NoDataValue>\n'
            "  </PAMRasterBand>\n"
            for band in range(1, bands + 1)
        ]
    return f"<PAMDataset>\n{''.join(parts)}</PAMDataset>\n" if parts else ""


@functools.lru_cache(_CRS_KEPT)
def _parsed_crs(wkt: str) -> CRS:
    """Parsing a CRS takes longer than writing a chip; all chips of an export have the same."""
    try:
        return CRS.from_wkt(wkt)
    except RasterioError as error:
        raise OutputError(f"GDAL cannot write the CRS {wkt[:80]!r}: {error}") from error


@functools.lru_cache(_CRS_KEPT)
def _esri_wkt(wkt: str) -> str:
    return _parsed_crs(wkt).to_wkt(version="WKT1_ESRI")


def _crs(wkt: str | None) -> CRS | None:
    return None if wkt is None else _parsed_crs(wkt)
