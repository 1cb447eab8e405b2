"""A generated scene: a georeferenced raster, its labelled objects and the truth by pixel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray

from geodl.base.errors import OptionError
from geodl.base.options import check_choice
from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid
from geodl.testing.landscape import ALWAYS, KINDS, Outline, build_more, paint_landscape
from geodl.testing.terrain import FloatArray, smooth_noise

# Reflectance 1 as a stored number; 0 is nodata, so valid pixels are 1 at least.
_FULL_SCALE = {"uint8": 255.0, "uint16": 10000.0, "int16": 10000.0, "float32": 1.0}
_FLOAT_NODATA = -9999.0
_NAMES = {1: ("panchromatic",), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "nir")}
_PAN_WEIGHTS = np.array([[0.30, 0.55, 0.10, 0.05]], np.float32)
_CORNER_SHARE = 0.16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Files of one generated scene.

    Attributes
    ----------
    raster
        GeoTIFF, tiled, with nodata (0, or -9999 for float).
    labels
        GeoPackage of polygons with ``class_name`` (text) and ``classvalue`` (1, 2, ...).
    class_raster
        GeoTIFF uint8 on the raster's grid: class values, 0 background, 255 outside the data.
    road_raster
        Likewise: 1 on roads.
    classes
        In the order they were asked for; values count from 1.
    grid
        Of all rasters.
    """

    raster: Path
    labels: Path
    class_raster: Path
    road_raster: Path
    classes: ClassTable
    grid: GeoGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """Files of one generated scene at two dates.

    Attributes
    ----------
    before, after
        GeoTIFFs, tiled, with nodata as a scene has it; the later one is also lit otherwise.
    change_raster
        GeoTIFF uint8 on their grid: 1 where there are new buildings, 0 where not, 255 outside.
    """

    before: Path
    after: Path
    change_raster: Path


def make_scene(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    size: tuple[int, int] = (1024, 1024),
    bands: int = 3,
    dtype: str = "uint8",
    cell_size: float = 0.5,
    crs: str | None = "EPSG:32633",
    classes: Sequence[str] = ("building", "tree"),
    nodata_corner: bool = True,
) -> Scene:
    """Write a realistic scene, the same for the same arguments.

    Parameters
    ----------
    folder
        Made if it is not there; ``scene.tif``, ``labels.gpkg``, ``classes.tif`` and ``roads.tif``
        in it are replaced.
    seed
        Everything that varies; another seed is another landscape of the same kind.
    size
        Rows and columns. Objects have fixed sizes in pixels (buildings 20 to 50, crowns 9 to 30),
        whatever the cell size.
    bands
        1 is panchromatic, 3 red, green, blue, 4 adds near infrared; more are linear mixtures
        with noise of their own.
    dtype
        ``uint8``, ``uint16``, ``int16`` (reflectance times 10000) or ``float32`` (0..1).
    cell_size
        In units of ``crs``.
    crs
        Anything rasterio reads, or None for plain pixels (x right, y down).
    classes
        Of ``building``, ``tree``, ``pad``, ``pond``. Buildings and trees stand in every scene;
        those not asked for are not labelled.
    nodata_corner
        Whether the lower left corner lies outside the data.

    Returns
    -------
    Scene

    Raises
    ------
    OptionError
        A class, dtype, size or number of bands that is not offered.
    """
    rows, cols = _check(size, bands, dtype, classes)
    rng = np.random.default_rng([20260, seed])
    outside = _corner(rows, cols) if nodata_corner else np.zeros((rows, cols), bool)
    land = paint_landscape(rng, rows, cols, classes, outside)
    pixels = _to_numbers(_mix(rng, land.latent, bands), dtype, outside)
    table = ClassTable.from_mapping(dict(enumerate(classes, start=1)))
    labelled = [outline for outline in land.outlines if outline.kind in classes]

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    grid = _grid(rows, cols, crs, cell_size)
    _write_raster(folder / "scene.tif", pixels, grid, _nodata(dtype), _band_names(bands))
    _write_labels(folder / "labels.gpkg", labelled, table, grid)
    truth = _class_raster(labelled, table, outside)
    _write_raster(folder / "classes.tif", truth[None], grid, 255, ("class",))
    roads = np.where(outside, 255, land.road).astype(np.uint8)
    _write_raster(folder / "roads.tif", roads[None], grid, 255, ("class",))
    return Scene(
        raster=folder / "scene.tif",
        labels=folder / "labels.gpkg",
        class_raster=folder / "classes.tif",
        road_raster=folder / "roads.tif",
        classes=table,
        grid=grid,
    )


def make_dates(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    size: tuple[int, int] = (512, 512),
    bands: int = 3,
    dtype: str = "uint8",
    cell_size: float = 0.5,
    crs: str | None = "EPSG:32633",
) -> Dates:
    """Write a scene at two dates, between which buildings were put up; the same for one seed.

    Parameters
    ----------
    folder
        Made if it is not there; ``before.tif``, ``after.tif`` and ``change.tif`` in it are
        replaced.
    seed, size, bands, dtype, cell_size, crs
        As for :func:`make_scene`.

    Raises
    ------
    OptionError
        A dtype, size or number of bands that is not offered.
    """
    rows, cols = _check(size, bands, dtype, ALWAYS)
    rng = np.random.default_rng([20261, seed])
    outside = _corner(rows, cols)
    land = paint_landscape(rng, rows, cols, ALWAYS, outside, leave_sites=True)
    before = _to_numbers(_mix(rng, land.latent, bands), dtype, outside)
    built = build_more(rng, land)
    # Another hour and season: brightness by band, and grass that has grown or dried.
    land.latent *= rng.uniform(0.88, 1.12, (4, 1, 1)).astype(np.float32)
    land.latent *= 1 + 0.04 * smooth_noise(rng, rows, cols, 60)
    after = _to_numbers(_mix(rng, land.latent, bands), dtype, outside)
    table = ClassTable.from_mapping({1: "building"})

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    grid = _grid(rows, cols, crs, cell_size)
    for name, pixels in (("before", before), ("after", after)):
        _write_raster(folder / f"{name}.tif", pixels, grid, _nodata(dtype), _band_names(bands))
    change = _class_raster(built, table, outside)
    _write_raster(folder / "change.tif", change[None], grid, 255, ("class",))
    return Dates(
        before=folder / "before.tif",
        after=folder / "after.tif",
        change_raster=folder / "change.tif",
    )


def _grid(rows: int, cols: int, crs: str | None, cell_size: float) -> GeoGrid:
    transform = _transform(crs, cell_size)
    wkt = None if crs is None else rasterio.crs.CRS.from_user_input(crs).to_wkt()
    return GeoGrid(width=cols, height=rows, transform=tuple(transform)[:6], crs=wkt)


def _nodata(dtype: str) -> float:
    return _FLOAT_NODATA if dtype == "float32" else 0


def _check(
    size: tuple[int, int], bands: int, dtype: str, classes: Sequence[str]
) -> tuple[int, int]:
    rows, cols = size
    if rows < 64 or cols < 64:
        raise OptionError(f"size={size} is too small; a scene has at least 64 x 64 pixels.")
    if bands < 1:
        raise OptionError(f"bands={bands} is too small; the least is 1.")
    check_choice(dtype, _FULL_SCALE, "dtype")
    if not classes or len(set(classes)) != len(classes):
        raise OptionError(f"classes={tuple(classes)} must be different names, at least one.")
    for name in classes:
        check_choice(name, KINDS, "classes")
    return rows, cols


def _corner(rows: int, cols: int) -> NDArray[np.bool_]:
    """bool (rows, cols), True in the lower left corner, beyond a slanting edge."""
    up = (rows - 1 - np.arange(rows))[:, None] / rows
    right = np.arange(cols)[None, :] / cols
    return np.asarray(up * 1.4 + right < _CORNER_SHARE)


def _mix(rng: np.random.Generator, latent: FloatArray, bands: int) -> FloatArray:
    """float32 (bands, H, W): what a sensor with so many bands sees of the four latent ones."""
    if bands == 1:
        return np.einsum("bl,lhw->bhw", _PAN_WEIGHTS, latent)
    if bands == 2:
        return latent[[0, 3]]
    if bands <= 4:
        return latent[:bands]
    # The sensor is the same for every scene, its noise is not.
    sensor = np.random.default_rng(7)
    # From blue to near infrared in steps of the spectrum; the order of ``latent`` is R, G, B, N.
    centres = np.linspace(0, 3, bands)
    anchors = np.array([2.0, 1.0, 0.0, 3.0])
    weights = np.exp(-(((centres[:, None] - anchors[None, :]) / 0.6) ** 2))
    weights *= sensor.uniform(0.8, 1.1, (bands, 1)) / weights.sum(axis=1, keepdims=True)
    mixed = np.einsum("bl,lhw->bhw", weights.astype(np.float32), latent)
    for band in mixed:
        band += 0.008 * rng.standard_normal(band.shape, dtype=np.float32)
    return mixed


def _to_numbers(
    reflectance: FloatArray, dtype: str, outside: NDArray[np.bool_]
) -> NDArray[np.generic]:
    if dtype == "float32":
        return np.where(outside, np.float32(_FLOAT_NODATA), reflectance)
    full = _FULL_SCALE[dtype]
    numbers = np.rint(reflectance * full).clip(1, full).astype(dtype)
    numbers[:, outside] = 0
    return numbers


def _transform(crs: str | None, cell_size: float) -> Affine:
    if crs is None:
        return Affine.identity()
    parsed = rasterio.crs.CRS.from_user_input(crs)
    x, y = (15.0, 47.0) if parsed.is_geographic else (500_000.0, 5_200_000.0)
    return Affine(cell_size, 0.0, x, 0.0, -cell_size, y)


def _band_names(bands: int) -> tuple[str, ...]:
    return _NAMES.get(bands, tuple(f"band_{number}" for number in range(1, bands + 1)))


def _write_raster(
    path: Path,
    pixels: NDArray[np.generic],
    grid: GeoGrid,
    nodata: float,
    names: Sequence[str],
) -> None:
    profile = {
        "driver": "GTiff", "count": len(pixels), "height": grid.height, "width": grid.width,
        "dtype": pixels.dtype.name, "nodata": nodata, "tiled": True, "blockxsize": 256,
        "blockysize": 256, "compress": "deflate", "zlevel": 1,
    }  # fmt: skip
    if len(pixels) == 4:
        # GDAL would declare a fourth band next to red, green and blue to be alpha.
        profile["alpha"] = "NO"
    if grid.crs is not None:
        profile |= {"crs": grid.crs, "transform": grid.affine}
    with warnings.catch_warnings():
        # A scene in plain pixels has no georeference on purpose.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        file = rasterio.open(path, "w", **profile)
    with file:
        file.write(pixels)
        for number, name in enumerate(names, start=1):
            file.set_band_description(number, name)


def _write_labels(
    path: Path, outlines: Sequence[Outline], table: ClassTable, grid: GeoGrid
) -> None:
    values = {entry.name: entry.value for entry in table}
    a, b, c, d, e, f = grid.transform
    turn, origin = np.array([[a, d], [b, e]]), np.array([c, f])
    frame = gpd.GeoDataFrame(
        {
            "class_name": [outline.kind for outline in outlines],
            "classvalue": np.array([values[outline.kind] for outline in outlines], np.int32),
        },
        geometry=[shapely.Polygon(outline.ring @ turn + origin) for outline in outlines],
        crs=grid.crs,
    )
    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        # Likewise: labels in plain pixels have no CRS.
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        frame.to_file(path, layer="labels", driver="GPKG", engine="pyogrio")


def _class_raster(
    outlines: Sequence[Outline], table: ClassTable, outside: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """uint8 (H, W): later objects lie on top, as they were painted."""
    values = {entry.name: entry.value for entry in table}
    shapes = [(shapely.Polygon(outline.ring), values[outline.kind]) for outline in outlines]
    truth = np.zeros(outside.shape, np.uint8)
    if shapes:
        rasterio.features.rasterize(shapes, out=truth, transform=Affine.identity())
    truth[outside] = 255
    return truth
