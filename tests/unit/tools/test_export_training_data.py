"""Chips lie where they should and hold what lies there, held to rasterio and shapely directly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize

from geodl.formats import BoxLabels, ChipFolder, count_labels, open_export
from geodl.formats.images import open_image, read_image
from geodl.testing import Scene, make_scene
from geodl.tools.export_training_data import export_training_data

VOC, TILES = "PASCAL_VOC_rectangles", "Classified_Tiles"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), seed=3, size=(300, 360), bands=4)


def export(tmp_path: Path, raster: Any, labels: Any, mode: str = VOC, **options: Any) -> ChipFolder:
    options = {"tile_size": 96, "progress": False, "output_location": tmp_path / "out"} | options
    return open_export(export_training_data(raster, labels, metadata_format=mode, **options))


def windows(folder: ChipFolder, grid_transform: Affine) -> list[tuple[int, int]]:
    """Row and column of each chip's corner in the image, by the chip's own georeference."""
    corners = []
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            col, row = ~grid_transform @ (dataset.transform.c, dataset.transform.f)
        assert (row, col) == pytest.approx((round(row), round(col)), abs=1e-6)
        corners.append((round(row), round(col)))
    return corners


def boxes_in_chip(geometries: Any, transform: Affine, corner: tuple[int, int], size: int) -> Any:
    """The boxes that a chip should hold, by shapely alone."""
    frame = shapely.box(corner[1], corner[0], corner[1] + size, corner[0] + size)
    found = []
    for geometry in geometries:
        pixels = shapely.transform(
            geometry, lambda xy: np.array([~transform @ tuple(point) for point in xy])
        )
        part = pixels.intersection(frame)
        if part.is_empty:
            continue
        x0, y0, x1, y1 = part.bounds
        if min(x1 - x0, y1 - y0) >= 0.02:
            found.append([x0 - corner[1], y0 - corner[0], x1 - corner[1], y1 - corner[0]])
    return np.array(found).reshape(-1, 4)


def test_chips_lie_row_by_row_and_hold_the_rasters_own_pixels(tmp_path: Path, scene: Scene) -> None:
    folder = export(
        tmp_path, scene.raster, scene.labels, stride_size={"x": 60, "y": 80},
        context={"exportAllTiles": True},
    )  # fmt: skip
    with rasterio.open(scene.raster) as dataset:
        pixels, transform = dataset.read(), dataset.transform
    expected = [(r, c) for r in range(0, 205, 80) for c in range(0, 265, 60)]
    assert windows(folder, transform) == expected
    for ref, (row, col) in zip(folder.chips, expected, strict=True):
        with rasterio.open(ref.image) as dataset:
            assert np.array_equal(dataset.read(), pixels[:, row : row + 96, col : col + 96])
            assert dataset.nodata == 0
            assert dataset.crs.to_epsg() == 32633
    assert folder.band_names == ("red", "green", "blue", "nir")


def test_every_label_is_in_every_chip_that_should_hold_it_once(
    tmp_path: Path, scene: Scene
) -> None:
    folder = export(tmp_path, scene.raster, scene.labels, stride_size=48)
    labels = gpd.read_file(scene.labels)
    transform = Affine(*scene.grid.transform)
    corners = windows(folder, transform)
    assert len(set(corners)) == len(corners)
    for ref, corner in zip(folder.chips, corners, strict=True):
        found = folder.chip_format.read_label(ref, folder)
        expected = boxes_in_chip(labels.geometry, transform, corner, 96)
        assert found.boxes.shape == expected.shape
        assert np.abs(found.boxes - expected).max() <= 0.0051
    unlabelled = {(r, c) for r in range(0, 205, 48) for c in range(0, 265, 48)} - set(corners)
    for corner in unlabelled:
        assert not len(boxes_in_chip(labels.geometry, transform, corner, 96))
    assert folder.classes.names == ["building", "tree"]
    assert folder.class_counts == count_labels(folder)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 432100, 0, -0.5, 4567900),
        Affine.translation(432100, 4567900) @ Affine.rotation(25) @ Affine.scale(0.5, -0.5),
        Affine(2.7e-6, 0, 15.0, 0, -2.7e-6, 47.0),
        # Origin on half a pixel of the labels' whole coordinates.
        Affine(1, 0, 432100.5, 0, -1, 4567900.5),
    ],
    ids=["utm", "rotated", "degrees", "half pixels"],
)
def test_class_tiles_equal_rasterios_own_burning(
    tmp_path: Path, transform: Affine, write_raster: Any
) -> None:
    rng = np.random.default_rng(5)
    crs = "EPSG:4326" if transform.c < 100 else "EPSG:32633"
    raster = write_raster(
        rng.integers(1, 200, (3, 100, 140), np.uint8), transform=transform, crs=crs
    )
    shapes = [
        shapely.Polygon([transform @ tuple(xy) for xy in circle.exterior.coords])
        for circle in (
            shapely.Point(x, y).buffer(r, quad_segs=4)
            for x, y, r in zip(
                rng.uniform(0, 140, 25), rng.uniform(0, 100, 25), rng.uniform(1, 15, 25),
                strict=True,
            )
        )
    ]  # fmt: skip
    values = rng.choice([2, 5, 300], 25)
    labels = gpd.GeoDataFrame({"Value": values}, geometry=shapes, crs=crs)
    folder = export(tmp_path, raster, labels, TILES, tile_size=48, stride_size=32)
    assert folder.classes.values == [2, 5, 300]
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
        expected = rasterize(
            list(zip(shapes, values.tolist(), strict=True)), out_shape=(48, 48), transform=here,
            dtype="int32",
        )  # fmt: skip
        assert np.array_equal(folder.chip_format.read_label(ref, folder).values, expected)


@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, "uint8"), (3, "uint16"), (13, "int16"), (4, "float32")]
)
def test_statistics_are_those_of_all_pixels_of_all_chips(
    tmp_path: Path, bands: int, dtype: str
) -> None:
    scene = make_scene(tmp_path / "scene", seed=1, size=(128, 160), bands=bands, dtype=dtype)
    folder = export(tmp_path, scene.raster, scene.labels, TILES, tile_size=64, stride_size=40)
    stack = np.stack([read_image(ref.image).data for ref in folder.chips]).astype(np.float64)
    assert (folder.bands, folder.dtype) == (bands, dtype)
    assert folder.stats is not None
    for band, summary in enumerate(folder.stats):
        values = stack[:, band]
        assert (summary.minimum, summary.maximum) == (values.min(), values.max())
        assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
        assert summary.std == pytest.approx(values.std(), rel=1e-9)
    assert folder.class_counts == count_labels(folder)


def test_a_class_raster_gives_its_values_and_nodata_is_background(
    tmp_path: Path, scene: Scene
) -> None:
    folder = export(tmp_path, scene.raster, scene.class_raster, TILES)
    with rasterio.open(scene.class_raster) as dataset:
        truth, transform = dataset.read(1), dataset.transform
        assert dataset.nodata == 255
    truth[truth == 255] = 0
    assert folder.classes.to_json()[1]["Name"] == "2"
    corners = windows(folder, transform)
    for ref, (row, col) in zip(folder.chips, corners, strict=True):
        found = folder.chip_format.read_label(ref, folder).values
        assert np.array_equal(found, truth[row : row + 96, col : col + 96])
    for row in range(0, 205, 96):
        for col in range(0, 265, 96):
            assert ((row, col) in corners) == truth[row : row + 96, col : col + 96].any()


def test_a_class_raster_beside_the_image_is_zero_where_it_does_not_reach(
    tmp_path: Path, write_raster: Any
) -> None:
    image = write_raster(np.ones((1, 64, 64), np.uint8))
    shifted = Affine(0.5, 0, 500000 + 20 * 0.5, 0, -0.5, 5000000 - 40 * 0.5)
    labels = write_raster(np.full((1, 64, 64), 3, np.uint8), "labels.tif", transform=shifted)
    folder = export(tmp_path, image, labels, TILES, tile_size=64)
    values = folder.chip_format.read_label(folder.chips[0], folder).values
    assert (values[40:, 20:] == 3).all()
    assert values.sum() == 3 * 24 * 44


def test_points_become_boxes_of_twice_the_radius_cut_at_the_chips_edge(
    tmp_path: Path, write_raster: Any
) -> None:
    raster = write_raster(np.ones((3, 64, 64), np.uint8))
    points = gpd.GeoDataFrame(
        geometry=[shapely.Point(500010, 4999990), shapely.MultiPoint([(500031, 4999984)])],
        crs="EPSG:32633",
    )
    folder = export(tmp_path, raster, points, tile_size=64, buffer_radius=3)
    boxes = folder.chip_format.read_label(folder.chips[0], folder).boxes
    assert boxes.tolist() == [[14, 14, 26, 26], [56, 26, 64, 38]]
    assert folder.classes.values == [1]


def test_lines_are_buffered_and_in_rotated_images_too(tmp_path: Path, write_raster: Any) -> None:
    transform = Affine.translation(500000, 5000000) @ Affine.rotation(90) @ Affine.scale(0.5, -0.5)
    raster = write_raster(np.ones((3, 64, 64), np.uint8), transform=transform)
    start, end = transform @ (10, 20), transform @ (50, 20)
    lines = gpd.GeoDataFrame(geometry=[shapely.LineString([start, end])], crs="EPSG:32633")
    folder = export(tmp_path, raster, lines, tile_size=64, buffer_radius="2")
    boxes = folder.chip_format.read_label(folder.chips[0], folder).boxes
    assert boxes.tolist() == [[6, 16, 54, 24]]


def test_labels_in_another_crs_are_brought_to_the_image(tmp_path: Path, scene: Scene) -> None:
    there = export(tmp_path, scene.raster, scene.labels)
    degrees = gpd.read_file(scene.labels).to_crs("EPSG:4326")
    here = export(tmp_path, scene.raster, degrees, output_location=tmp_path / "degrees")
    assert [ref.name for ref in here.chips] == [ref.name for ref in there.chips]
    for one, other in zip(here.chips, there.chips, strict=True):
        a = here.chip_format.read_label(one, here)
        b = there.chip_format.read_label(other, there)
        assert np.abs(a.boxes - b.boxes).max() <= 0.02


def test_multi_part_labels_are_one_object_and_holes_stay_open(
    tmp_path: Path, write_raster: Any
) -> None:
    raster = write_raster(np.ones((1, 64, 64), np.uint8))

    def at(x0: float, y0: float, x1: float, y1: float) -> shapely.Polygon:
        return shapely.box(500000 + x0 / 2, 5000000 - y1 / 2, 500000 + x1 / 2, 5000000 - y0 / 2)

    two = shapely.MultiPolygon([at(1, 1, 5, 5), at(20, 30, 25, 40)])
    ring = at(40, 40, 60, 60).difference(at(45, 45, 55, 55))
    labels = gpd.GeoDataFrame({"classvalue": [1, 2]}, geometry=[two, ring], crs="EPSG:32633")
    boxes = export(tmp_path, raster, labels, tile_size=64)
    found = boxes.chip_format.read_label(boxes.chips[0], boxes)
    assert found.boxes.tolist() == [[1, 1, 25, 40], [40, 40, 60, 60]]
    tiles = export(tmp_path, raster, labels, TILES, tile_size=64, output_location=tmp_path / "t")
    values = tiles.chip_format.read_label(tiles.chips[0], tiles).values
    assert (values == 2).sum() == 400 - 100


def test_features_with_too_small_a_share_are_dropped(tmp_path: Path, write_raster: Any) -> None:
    raster = write_raster(np.ones((1, 64, 128), np.uint8))
    # 3/4 of it lie in the first of two chips.
    label = shapely.box(500000 + 26, 4999980, 500000 + 34, 4999990)
    labels = gpd.GeoDataFrame(geometry=[label], crs="EPSG:32633")
    for ratio, names in ((0, 2), (0.25, 2), (0.5, 1), (0.75, 1)):
        folder = export(
            tmp_path, raster, labels, tile_size=64, min_polygon_overlap_ratio=ratio,
            output_location=tmp_path / str(ratio),
        )  # fmt: skip
        assert len(folder) == names
    all_tiles = export(
        tmp_path, raster, labels, tile_size=64, min_polygon_overlap_ratio=0.5,
        context={"exportAllTiles": "true"},
    )  # fmt: skip
    assert [len(all_tiles.chip_format.read_label(r, all_tiles)) for r in all_tiles.chips] == [1, 0]


def test_chips_are_cut_from_the_extents_corner(tmp_path: Path, scene: Scene) -> None:
    transform = Affine(*scene.grid.transform)
    x, y = transform @ (31, 45)
    extent = {
        "xmin": x, "ymax": y, "xmax": x + 0.5 * 200, "ymin": y - 0.5 * 130,
        "spatialReference": {"wkid": 32633},
    }  # fmt: skip
    folder = export(
        tmp_path, scene.raster, scene.labels, tile_size=64,
        context={"extent": extent, "exportAllTiles": True},
    )  # fmt: skip
    expected = [(45 + 64 * r, 31 + 64 * c) for r in range(2) for c in range(3)]
    assert windows(folder, transform) == expected


def test_a_cell_size_resamples_and_labels_follow(tmp_path: Path, scene: Scene) -> None:
    folder = export(
        tmp_path, scene.raster, scene.labels, tile_size=64,
        context={"cellSize": "1.0", "exportAllTiles": True},
    )  # fmt: skip
    assert folder.cell_size == ((1.0, 1.0), (1.0, 1.0))
    assert len(folder) == 4
    labels = gpd.read_file(scene.labels)
    transform = Affine(*scene.grid.transform) @ Affine.scale(2)
    for ref, corner in zip(folder.chips, windows(folder, transform), strict=True):
        found = folder.chip_format.read_label(ref, folder).boxes
        expected = boxes_in_chip(labels.geometry, transform, corner, 64)
        assert np.abs(found - expected).max() <= 0.0051


def test_only_chips_wholly_inside_the_mask_polygons_are_written(
    tmp_path: Path, scene: Scene
) -> None:
    transform = Affine(*scene.grid.transform)
    corners = [transform @ corner for corner in ((0, 0), (192, 0), (192, 191), (0, 191))]
    mask = gpd.GeoDataFrame(geometry=[shapely.Polygon(corners)], crs="EPSG:32633")
    folder = export(
        tmp_path, scene.raster, scene.labels, input_mask_polygons=mask,
        context={"exportAllTiles": True},
    )  # fmt: skip
    assert windows(folder, transform) == [(0, 0), (0, 96)]


def test_a_raster_without_crs_is_cut_in_pixels(tmp_path: Path) -> None:
    from geodl.base.errors import DataWarning

    scene = make_scene(tmp_path / "scene", size=(128, 128), crs=None)
    labels = gpd.read_file(scene.labels, engine="pyogrio").set_crs(None, allow_override=True)
    with pytest.warns(DataWarning, match="no CRS"):
        folder = export(tmp_path, scene.raster, labels, tile_size=64)
    found = folder.chip_format.read_label(folder.chips[0], folder)
    expected = boxes_in_chip(labels.geometry, Affine.identity(), (0, 0), 64)
    assert np.abs(found.boxes - expected).max() <= 0.0051


@pytest.mark.parametrize("space", ["IMAGE_SPACE", "PIXEL_SPACE"])
def test_outside_map_space_chips_are_placed_by_pixels(
    tmp_path: Path, scene: Scene, space: str
) -> None:
    folder = export(tmp_path, scene.raster, scene.labels, reference_system=space)
    assert folder.image_space == space
    assert {(row % 96, col % 96) for row, col in windows(folder, Affine.identity())} == {(0, 0)}
    with open_image(folder.chips[0].image) as dataset:
        assert dataset.crs is None


def test_the_published_short_form_is_understood(
    tmp_path: Path, write_raster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    raster = write_raster(np.ones((3, 160, 160), np.uint8))
    pads = gpd.GeoDataFrame(geometry=[shapely.Point(500040, 4999960)], crs="EPSG:32633")
    monkeypatch.chdir(tmp_path)
    where = export_training_data(
        str(raster), pads, "PNG", {"x": 128, "y": 128}, {"x": 16, "y": 16}, VOC, 10, "planetdemo",
        progress=False,
    )  # fmt: skip
    assert where == str(tmp_path / "planetdemo")
    folder = open_export(where)
    assert folder.chips[0].image.suffix == ".png"
    label = folder.chip_format.read_label(folder.chips[0], folder)
    assert (label.boxes[0, 2:] - label.boxes[0, :2]).tolist() == [40, 40]


def test_without_a_location_the_export_is_named_after_raster_and_run(
    tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"metadata_format": VOC, "tile_size": 96, "progress": False}
    one = export_training_data(scene.raster, scene.labels, **options)
    other = export_training_data(
        scene.raster, scene.labels, **options, min_polygon_overlap_ratio=0.5
    )
    assert Path(one).parent == tmp_path
    assert Path(one).name.startswith("export_training_data_scene_")
    assert one != other


def test_kitti_and_tiff_are_the_documented_defaults(tmp_path: Path, scene: Scene) -> None:
    where = export_training_data(
        scene.raster, scene.labels, output_location=tmp_path / "out", progress=False
    )
    folder = open_export(where)
    assert folder.metadata_mode == "KITTI_rectangles"
    assert folder.tile_size == (256, 256)
    assert folder.chips[0].image.suffix == ".tif"
    assert isinstance(folder.chip_format.read_label(folder.chips[0], folder), BoxLabels)


def test_a_manifest_lies_beside_the_export(tmp_path: Path, scene: Scene) -> None:
    folder = export(tmp_path, scene.raster, scene.labels)
    manifest = json.loads((tmp_path / "out.manifest.json").read_text())
    assert manifest["tool"] == "export_training_data"
    assert manifest["chips"] == len(folder)
    assert manifest["blocks"]["failed"] == 0


def test_an_estimate_writes_nothing(
    tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hours = export_training_data(
        scene.raster, scene.labels, metadata_format=VOC, tile_size=96, estimate=True,
        output_location=tmp_path / "out",
    )  # fmt: skip
    assert isinstance(hours, float)
    assert 0 < hours < 1
    assert math.isfinite(hours)
    assert not (tmp_path / "out").exists()


def test_a_future_gives_the_folder(tmp_path: Path, scene: Scene) -> None:
    future: Any = export_training_data(
        scene.raster, scene.labels, metadata_format=TILES, tile_size=96, future=True,
        output_location=tmp_path / "out", progress=False,
    )  # fmt: skip
    assert open_export(future.result(timeout=120)).metadata_mode == TILES
    assert future.progress == 1.0
