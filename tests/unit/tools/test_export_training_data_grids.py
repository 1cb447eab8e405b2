"""Labels on odd grids, held to pyproj, shapely and rasterio called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from geodl.formats import ChipFolder, open_export
from geodl.formats.images import open_image
from geodl.tools.export_training_data import export_training_data

VOC, TILES = "PASCAL_VOC_rectangles", "Classified_Tiles"
SIZE, TILE, STRIDE = (110, 130), 48, 31

LAEA = "+proj=laea +lat_0=47.3 +lon_0=14.6 +x_0=1000 +y_0=2000 +ellps=GRS80 +units=m +no_defs"
OBLIQUE = (
    "+proj=omerc +lat_0=46.95 +lonc=7.44 +alpha=53 +gamma=53 +k=0.9998 +x_0=0 +y_0=0 "
    "+ellps=bessel +units=m +no_defs"
)
FEET = "+proj=tmerc +lat_0=40 +lon_0=-75.1 +k=0.9999 +x_0=500 +y_0=0 +datum=NAD83 +units=us-ft"


def turned(angle_deg: float, x: float, y: float, cell: float) -> Affine:
    return Affine.translation(x, y) @ Affine.rotation(angle_deg) @ Affine.scale(cell, -cell)


# Name: CRS of the image, its transform.
GRIDS = {
    "laea": (LAEA, Affine(0.5, 0, 1300, 0, -0.5, 2700)),
    "oblique mercator": (OBLIQUE, Affine(0.25, 0, -420.1, 0, -0.25, 77.7)),
    "oblique mercator, turned": (OBLIQUE, turned(-37.5, -420.1, 77.7, 0.25)),
    "survey feet": (FEET, Affine(1.5, 0, 4000.75, 0, -1.5, 9000.75)),
    "degrees, turned": ("EPSG:4326", turned(12, 15.0, 47.0, 2.7e-6)),
    "degrees, oblong cells": ("EPSG:4326", Affine(4.1e-6, 0, -70.5, 0, -2.7e-6, 8.25)),
    "sheared": ("EPSG:32633", Affine(0.5, 0.1, 432100, 0.05, -0.5, 4567900)),
    "south up": ("EPSG:32733", Affine(0.5, 0, 432100, 0, 0.5, 4567900)),
    "half pixels": ("EPSG:32633", Affine(1, 0, 432100.5, 0, -1, 4567900.5)),
}


def scattered(rng: np.random.Generator, transform: Affine, count: int = 24) -> list[Any]:
    """Polygons with corners between pixels, some with a hole, placed on a grid."""
    shapes = []
    for x, y, radius in zip(
        rng.uniform(0, SIZE[1], count), rng.uniform(0, SIZE[0], count), rng.uniform(1, 14, count),
        strict=True,
    ):  # fmt: skip
        shape = shapely.Point(x, y).buffer(radius, quad_segs=3)
        if radius > 9:
            shape = shape.difference(shapely.Point(x, y).buffer(radius / 2, quad_segs=2))
        shapes.append(shapely.transform(shape, lambda xy: np.array([transform @ p for p in xy])))
    return shapes


def exported(tmp_path: Path, raster: Path, labels: Any, mode: str) -> ChipFolder:
    return open_export(
        export_training_data(
            raster, labels, metadata_format=mode, tile_size=TILE, stride_size=STRIDE,
            progress=False, output_location=tmp_path / mode,
        )
    )  # fmt: skip


def expected_boxes(shapes: list[Any], here: Affine) -> np.ndarray:
    """Bounds of the parts in a chip, in its pixels, by shapely and the chip's own transform."""
    back = ~here
    boxes = []
    for shape in shapes:
        part = shapely.transform(shape, lambda xy: np.array([back @ p for p in xy]))
        part = part.intersection(shapely.box(0, 0, TILE, TILE))
        x0, y0, x1, y1 = part.bounds
        if min(x1 - x0, y1 - y0) >= 0.02:
            boxes.append((x0, y0, x1, y1))
    return np.array(boxes).reshape(-1, 4)


@pytest.mark.parametrize("name", GRIDS)
def test_masks_and_boxes_of_any_grid(tmp_path: Path, name: str, write_raster: Any) -> None:
    crs, transform = GRIDS[name]
    rng = np.random.default_rng(11)
    raster = write_raster(
        rng.integers(1, 200, (3, *SIZE), np.uint8), transform=transform, crs=CRS(crs).to_wkt()
    )
    shapes = scattered(rng, transform)
    values = rng.choice([1, 4, 260], len(shapes))
    labels = gpd.GeoDataFrame({"Value": values}, geometry=shapes, crs=CRS(crs))
    tiles = exported(tmp_path, raster, labels, TILES)
    for ref in tiles.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
            assert CRS(dataset.crs.to_wkt()).equals(CRS(crs), ignore_axis_order=True)
        mask = rasterize(
            list(zip(shapes, values.tolist(), strict=True)), out_shape=(TILE, TILE),
            transform=here, dtype="int32",
        )  # fmt: skip
        # A centre on an edge may fall to either side: coordinates round differently.
        assert (tiles.chip_format.read_label(ref, tiles).values != mask).sum() <= 1
    boxes = exported(tmp_path, raster, labels, VOC)
    count = 0
    for ref in boxes.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
        found = boxes.chip_format.read_label(ref, boxes).boxes
        expected = expected_boxes(shapes, here)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 0.0051 + 1e-4
        count += len(found)
    assert count == sum((boxes.class_counts or {}).values()) > len(shapes)


@pytest.mark.parametrize("name", ["laea", "oblique mercator, turned", "survey feet"])
def test_labels_in_degrees_on_an_image_without_a_code(
    tmp_path: Path, name: str, write_raster: Any
) -> None:
    crs, transform = GRIDS[name]
    rng = np.random.default_rng(12)
    raster = write_raster(
        rng.integers(1, 200, (1, *SIZE), np.uint8), transform=transform, crs=CRS(crs).to_wkt()
    )
    geographic = CRS(crs).geodetic_crs
    there = Transformer.from_crs(CRS(crs), geographic, always_xy=True)
    back = Transformer.from_crs(geographic, CRS(crs), always_xy=True)
    shapes = [
        shapely.transform(shape, lambda xy: np.column_stack(there.transform(*xy.T)))
        for shape in scattered(rng, transform)
    ]
    labels = gpd.GeoDataFrame({"Value": 1}, index=range(len(shapes)), geometry=shapes,
                              crs=geographic)  # fmt: skip
    projected = [
        shapely.transform(shape, lambda xy: np.column_stack(back.transform(*xy.T)))
        for shape in shapes
    ]
    folder = exported(tmp_path, raster, labels, VOC)
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            expected = expected_boxes(projected, dataset.transform)
        found = folder.chip_format.read_label(ref, folder).boxes
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 0.01


def test_a_class_raster_of_another_crs_agrees_with_warped_polygons(
    tmp_path: Path, write_raster: Any
) -> None:
    transform = Affine(1, 0, 1300, 0, -1, 2700)
    image = write_raster(np.full((1, 96, 96), 9, np.uint8), transform=transform,
                         crs=CRS(LAEA).to_wkt())  # fmt: skip
    west, south, east, north = 1300 + 20, 2700 - 80, 1300 + 75, 2700 - 15
    block = shapely.box(west, south, east, north)
    in_utm = transform_geom(CRS(LAEA).to_wkt(), "EPSG:32633", shapely.geometry.mapping(block))
    around = shapely.geometry.shape(in_utm).buffer(80).bounds
    fine = Affine(0.25, 0, around[0], 0, -0.25, around[3])
    shape = (int((around[3] - around[1]) / 0.25), int((around[2] - around[0]) / 0.25))
    mask = rasterize([(in_utm, 7)], out_shape=shape, transform=fine, dtype="uint8")
    classes = write_raster(mask[None], "classes.tif", transform=fine, crs="EPSG:32633")
    folder = open_export(
        export_training_data(image, classes, metadata_format=TILES, tile_size=96,
                             progress=False, output_location=tmp_path / "out")
    )  # fmt: skip
    values = folder.chip_format.read_label(folder.chips[0], folder).values
    expected = rasterize([(block, 7)], out_shape=(96, 96), transform=transform, dtype="uint8")
    # Nearest neighbour at a quarter of a pixel: only edge pixels may differ.
    edge = np.zeros((96, 96), bool)
    for box in ((19, 14, 76, 16), (19, 79, 76, 81), (19, 14, 21, 81), (74, 14, 76, 81)):
        edge[box[1] : box[3], box[0] : box[2]] = True
    assert np.array_equal(values[~edge], expected[~edge])
    assert abs(int((values == 7).sum()) - int((expected == 7).sum())) < 40
