"""What every chip format and every writer of products has to hold; for us and for plug-ins.

Each check raises ``AssertionError`` and says which rule was broken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray

from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid, Window
from geodl.formats import BoxLabels, ChipFolder, ChipRef, MaskLabels, open_export
from geodl.io.regions import RegionStore
from geodl.io.source import open_source
from geodl.io.writers import raster_writer, vector_writer, write_features, write_raster
from geodl.testing.chips import chips_with_scene
from geodl.testing.scene import Scene

_CHIP_PX = 64
# Formats round boxes: to whole pixels at worst.
_BOX_TOLERANCE_PX = 1.0
_LEAST_SIDE_PX = 0.02
_ROW_COLUMNS = ["Class", "ClassValue", "Confidence"]


def check_format(name: str, folder: Path, *, bands: int = 3, dtype: str = "uint8") -> None:
    """Chips that are exported hold the raster's pixels and every label, and read back whole.

    Parameters
    ----------
    name
        A key of ``geodl.formats.FORMATS``.
    folder
        Empty; the scene and the chips go there.
    bands, dtype
        Of the scene.
    """
    path, scene = chips_with_scene(
        folder, name, chip_px=_CHIP_PX, grid=(3, 4), bands=bands, dtype=dtype,
        classes=("building", "tree"), chip_format="TIFF", seed=5,
    )  # fmt: skip
    chips = open_export(path)
    assert chips.metadata_mode == name, f"{name} reads its own export as {chips.metadata_mode}"
    assert len(chips) == 12, f"{name} wrote {len(chips)} chips of 12"
    assert chips.classes.names == ["building", "tree"], f"{name} lost the class names"
    assert (chips.bands, chips.dtype) == (bands, dtype), f"{name} changed bands or dtype"
    reader = chips.chip_format
    totals = dict.fromkeys(chips.classes.values, 0)
    for ref in chips.chips:
        window = _check_pixels(ref, chips, scene)
        label = reader.read_label(ref, chips)
        if reader.kind == "objects":
            _check_boxes(label, ref, scene, window)
        else:
            _check_mask(label, ref, scene, window)
        for value, number in reader.count(label).items():
            totals[value] += number
    assert min(totals.values()) > 0, f"{name} lost a class: {totals}"
    if chips.class_counts is not None:
        assert chips.class_counts == totals, f"{name} counted {chips.class_counts}, not {totals}"


def _check_pixels(ref: ChipRef, chips: ChipFolder, scene: Scene) -> Window:
    """The chip holds the raster's own pixels where its transform says; returns its window."""
    image = chips.chip_format.read_chip(ref, chips)
    with rasterio.open(ref.image) as file:
        window = scene.grid.window_for_bounds(*file.bounds, clip=False)
    with rasterio.open(scene.raster) as raster:
        part = raster.read(window=((window.row, window.row_stop), (window.col, window.col_stop)))
    assert np.array_equal(image.data, part), f"{ref.image} differs from the raster"
    assert image.mask.shape == part.shape[1:], f"{ref.image}: mask of another size"
    return window


def _labels_of(scene: Scene) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Geometries in pixels of the scene, and their class values."""
    frame = gpd.read_file(scene.labels)
    a, _, c, _, e, f = scene.grid.transform
    shapes = shapely.transform(frame.geometry.to_numpy(), lambda points: (points - (c, f)) / (a, e))
    return shapes, frame["classvalue"].to_numpy(np.int64)


def _check_boxes(label: BoxLabels, ref: ChipRef, scene: Scene, window: Window) -> None:
    shapes, values = _labels_of(scene)
    frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
    parts = shapely.intersection(shapes, frame)
    bounds = shapely.bounds(parts) - np.array([window.col, window.row] * 2)
    large = (bounds[:, 2:] - bounds[:, :2] >= _LEAST_SIDE_PX).all(axis=1)
    expected = sorted(zip(values[large].tolist(), bounds[large].tolist(), strict=True))
    found = sorted(zip(label.values.tolist(), label.boxes.tolist(), strict=True))
    assert [v for v, _ in found] == [v for v, _ in expected], f"{ref.name}: other classes"
    wanted = shapely.box(*np.array([box for _, box in expected]).reshape(-1, 4).T)
    for value, box in found:
        # Boxes are compared as sets: rounding may change their order.
        distance = min(
            np.abs(np.array(box) - shapely.bounds(other)).max()
            for other, (v, _) in zip(wanted, expected, strict=True)
            if v == value
        )
        assert distance <= _BOX_TOLERANCE_PX, f"{ref.name}: {box} lies {distance:.2f} px off"


def _check_mask(label: MaskLabels, ref: ChipRef, scene: Scene, window: Window) -> None:
    shapes, values = _labels_of(scene)
    truth = rasterio.features.rasterize(
        zip(shapes, values.tolist(), strict=True), scene.grid.shape, dtype="int32"
    )[window.row : window.row_stop, window.col : window.col_stop]
    assert label.values.shape == truth.shape, f"{ref.name}: mask of another size"
    share = (label.values == truth).mean()
    assert share > 0.995, f"{ref.name}: only {share:.4f} of the mask is right"


def check_vector_writer(suffix: str, folder: Path) -> None:
    """Features come back with columns, geometry and CRS, also when there are none."""
    writer = vector_writer(suffix)
    assert writer.kind == "vector", f"{suffix} calls itself {writer.kind}"
    for name, count in (("some", 7), ("none", 0)):
        frame = sample_features(count)
        path = write_features(frame, folder / f"{name}{suffix}")
        again = _read_back(path)
        assert len(again) == count, f"{suffix}: {len(again)} of {count} features came back"
        # Shapefiles know ten letters.
        columns = [column[:10] if suffix == ".shp" else column for column in _ROW_COLUMNS]
        # GeoJSON states columns with its features only.
        if count or suffix != ".geojson":
            lost = set(columns) - set(again.columns)
            assert not lost, f"{suffix} lost the columns {lost}"
        crs = "EPSG:4326" if suffix == ".geojson" else frame.crs
        assert again.crs == crs, f"{suffix} changed the CRS to {again.crs}"
        if count:
            _check_rows(suffix, frame.to_crs(again.crs), again, columns)
    write_features(sample_features(3), folder / f"some{suffix}")
    assert len(_read_back(folder / f"some{suffix}")) == 3, f"{suffix} kept the older product"
    left = [path.name for path in folder.iterdir() if "part" in path.name]
    assert left == [], f"{suffix} left {left}"


def _read_back(path: Path) -> gpd.GeoDataFrame:
    """As other programs read it; the tools refuse layers without features."""
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)


def _check_rows(suffix: str, frame: Any, again: Any, columns: list[str]) -> None:
    # FlatGeobuf orders features along its spatial index.
    again = again.sort_values(columns[-1], ignore_index=True)
    assert again["Class"].tolist() == frame["Class"].tolist(), f"{suffix} changed the class names"
    for column, name in zip(columns[1:], _ROW_COLUMNS[1:], strict=True):
        near = np.allclose(again[column], frame[name], rtol=1e-6)
        assert near, f"{suffix} changed {name}"
    off = shapely.hausdorff_distance(again.geometry.to_numpy(), frame.geometry.to_numpy())
    limit = 1e-6 if again.crs.is_geographic else 1e-3
    assert off.max() < limit, f"{suffix} moved a feature by {off.max()}"


def sample_features(count: int) -> gpd.GeoDataFrame:
    """Detections as the tools write them, in EPSG:32633."""
    corner = np.arange(count) * 10.0
    return gpd.GeoDataFrame(
        {
            "Class": np.array(["tree", "Höhe über NN"], object)[np.arange(count) % 2],
            "ClassValue": np.arange(count, dtype=np.int64) % 2 + 1,
            "Confidence": np.linspace(5.5, 99.25, count),
        },
        geometry=shapely.box(5e5 + corner, 5e6, 5e5 + corner + 7, 5e6 + 4),
        crs="EPSG:32633",
    )


def check_raster_writer(suffix: str, folder: Path) -> None:
    """A class raster comes back with pixels, nodata, CRS and place; another product is replaced."""
    writer = raster_writer(suffix)
    assert writer.kind == "raster", f"{suffix} calls itself {writer.kind}"
    for seed in (0, 1):
        store, pixels = sample_regions(folder / f"regions{seed}.zarr", seed)
        path = write_raster(store, folder / f"map{suffix}", classes=sample_classes())
        again = open_source(path)
        assert again.grid.shape == store.grid.shape, f"{suffix} changed the size"
        assert again.grid.transform == store.grid.transform, f"{suffix} moved the raster"
        assert again.nodata == 255, f"{suffix} says nodata is {again.nodata}"
        assert "32633" in str(again.grid.crs) or "UTM zone 33N" in str(again.grid.crs), (
            f"{suffix} lost the CRS"
        )
        block = again.read(again.grid.window)
        assert np.array_equal(block.data, pixels), f"{suffix} changed pixels"
        assert np.array_equal(block.mask, pixels[0] != 255), f"{suffix} changed the mask"


def sample_classes() -> ClassTable:
    return ClassTable.from_mapping({3: "tree", 7: "roof"})


def sample_regions(path: Path, seed: int) -> tuple[RegionStore, NDArray[np.uint8]]:
    """A finished store of classes with a nodata corner, and its pixels uint8 (1, H, W)."""
    grid = GeoGrid(width=300, height=210, transform=(0.5, 0, 5e5, 0, -0.5, 5.2e6), crs="EPSG:32633")
    pixels = np.random.default_rng(seed).choice([0, 3, 7], (1, 210, 300)).astype(np.uint8)
    pixels[0, 150:, :60] = 255
    store = RegionStore.create(
        path, shape=(1, 210, 300), chunk=128, dtype="uint8", fill=255, grid=grid
    )
    for row in range(0, 210, 128):
        for col in range(0, 300, 128):
            window = Window(row=row, col=col, height=128, width=128).intersect(grid.window)
            rows, cols = window.within(grid.window)
            store.write(window, pixels[:, rows, cols])
    return store, pixels
