"""Bad input of an export gets an error that names it; what can be used is used, with a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine

from geodl.base.errors import (
    DataError,
    DataWarning,
    FormatError,
    GeodlError,
    GridMismatchError,
    NotSupportedError,
    OptionError,
    PlanError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.core.classes import ClassTable
from geodl.formats import open_export
from geodl.tools.chip_classes import classes_of
from geodl.tools.chip_labels import is_raster
from geodl.tools.export_training_data import export_training_data

VOC, TILES = "PASCAL_VOC_rectangles", "Classified_Tiles"


@pytest.fixture
def raster(write_raster: Any) -> Path:
    return write_raster(np.ones((3, 64, 96), np.uint8))


def box(col: float, row: float, size: float = 8) -> shapely.Polygon:
    """A square in the pixels of the raster, on the map."""
    x, y = 500000 + col / 2, 5000000 - row / 2
    return shapely.box(x, y - size / 2, x + size / 2, y)


def frame(*geometries: shapely.Geometry, crs: Any = "EPSG:32633", **columns: Any) -> Any:
    return gpd.GeoDataFrame(columns, geometry=list(geometries), crs=crs)


def export(tmp_path: Path, raster: Any, labels: Any, **options: Any) -> Any:
    options = {
        "metadata_format": VOC, "tile_size": 32, "progress": False,
        "output_location": tmp_path / "out",
    } | options  # fmt: skip
    return open_export(export_training_data(raster, labels, **options))


# -- labels -----------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path, raster: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone\.tif"):
        export(tmp_path, tmp_path / "gone.tif", frame(box(5, 5)))
    for name in ("gone.gpkg", "gone.tif"):
        with pytest.raises(SourceNotFoundError, match=name.replace(".", r"\.")):
            export(tmp_path, raster, tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_labels_without_crs_say_how_to_state_one(tmp_path: Path, raster: Path) -> None:
    labels = frame(box(5, 5), crs=None)
    with pytest.raises(GridMismatchError, match="assume_crs"):
        export(tmp_path, raster, labels)
    folder = export(tmp_path, raster, labels, assume_crs="EPSG:32633")
    assert len(folder) == 1


def test_georeferenced_labels_do_not_lie_on_plain_pixels(tmp_path: Path, write_raster: Any) -> None:
    plain = write_raster(np.ones((3, 64, 64), np.uint8), crs=None)
    with (
        pytest.warns(DataWarning, match="no CRS"),
        pytest.raises(GridMismatchError, match="no CRS"),
    ):
        export(tmp_path, plain, frame(box(5, 5)))


def test_no_overlap_shows_both_places(tmp_path: Path, raster: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere overlap.*EPSG:32633"):
        export(tmp_path, raster, frame(shapely.box(0, 0, 1, 1)))


def test_labels_outside_are_counted(tmp_path: Path, raster: Path) -> None:
    labels = frame(box(5, 5), shapely.box(0, 0, 1, 1), box(-40, 5))
    with pytest.warns(DataWarning, match="2 lie outside the raster"):
        assert len(export(tmp_path, raster, labels)) == 1


def test_invalid_rings_are_repaired_and_counted(tmp_path: Path, raster: Path) -> None:
    x, y = 500004, 4999996
    bow = shapely.Polygon([(x, y), (x + 4, y - 4), (x + 4, y), (x, y - 4)])
    with pytest.warns(DataWarning, match="1 had invalid geometries"):
        folder = export(tmp_path, raster, frame(bow, box(20, 20)))
    boxes = folder.chip_format.read_label(folder.chips[0], folder).boxes
    assert boxes.tolist() == [[8, 8, 16, 16], [20, 20, 28, 28]]


def test_an_empty_layer_is_refused(tmp_path: Path, raster: Path) -> None:
    with pytest.raises(DataError, match="no features"):
        export(tmp_path, raster, frame())
    with pytest.raises(DataError, match="geometry"):
        export(tmp_path, raster, frame(None))
    with pytest.raises(OptionError, match="needs labels"):
        export(tmp_path, raster, None)


def test_points_need_a_radius_where_boxes_are_made(tmp_path: Path, raster: Path) -> None:
    point = frame(shapely.Point(500010, 4999990))
    with pytest.raises(DataError, match="buffer_radius"):
        export(tmp_path, raster, point)
    tiles = export(tmp_path, raster, point, metadata_format=TILES)
    assert tiles.class_counts == {1: 1}


def test_a_radius_for_polygons_changes_nothing_and_says_so(tmp_path: Path, raster: Path) -> None:
    with pytest.warns(DataWarning, match="stay as they are"):
        folder = export(tmp_path, raster, frame(box(5, 5)), buffer_radius=9)
    label = folder.chip_format.read_label(folder.chips[0], folder)
    assert label.boxes.tolist() == [[5, 5, 13, 13]]


# -- class rasters ----------------------------------------------------------------------------


def test_a_class_raster_on_another_grid_takes_the_nearest_class(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    values = np.arange(1, 16 * 24 + 1, dtype=np.uint16).reshape(1, 16, 24)
    coarse = write_raster(
        values, "coarse.tif", transform=Affine(2, 0, 500000, 0, -2, 5000000),
        blockxsize=16, blockysize=16,
    )  # fmt: skip
    with pytest.warns(DataWarning, match="another grid"):
        folder = export(tmp_path, raster, coarse, metadata_format=TILES)
    found = folder.chip_format.read_label(folder.chips[0], folder).values
    assert np.array_equal(found, np.kron(values[0, :8, :8], np.ones((4, 4), int)))


def test_a_class_raster_in_another_crs_is_warped(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    from rasterio.warp import transform_bounds

    west, south, east, north = transform_bounds(
        "EPSG:32633", "EPSG:4326", 499990, 4999960, 500060, 5000010
    )
    transform = Affine((east - west) / 200, 0, west, 0, (south - north) / 200, north)
    labels = write_raster(
        np.full((1, 200, 200), 7, np.uint8), "degrees.tif", transform=transform, crs="EPSG:4326"
    )
    folder = export(tmp_path, raster, labels, metadata_format=TILES)
    assert folder.class_counts == {7: 64 * 96}


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (np.ones((2, 64, 96), np.uint8), {}, DataError, "2 bands"),
        (np.ones((1, 64, 96), np.float32), {}, DataError, "float32"),
        (np.ones((1, 64, 96), np.uint8), {"crs": None}, GridMismatchError, "assume_crs"),
        (
            np.ones((1, 64, 96), np.uint8),
            {"transform": Affine(0.5, 0, 0, 0, -0.5, 0)},
            DataError,
            "nowhere overlap",
        ),
        (np.zeros((1, 64, 96), np.uint8), {}, DataError, "No chip holds a label"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*states no CRS")
def test_class_rasters_that_cannot_be_used_are_refused(
    tmp_path: Path, raster: Path, write_raster: Any, values: np.ndarray, options: dict[str, Any],
    error: type[GeodlError], message: str,
) -> None:  # fmt: skip
    labels = write_raster(values, "labels.tif", **options)
    with pytest.raises(error, match=message):
        export(tmp_path, raster, labels, metadata_format=TILES)


def test_options_of_features_are_refused_for_a_class_raster(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    labels = write_raster(np.ones((1, 64, 96), np.uint8), "labels.tif")
    for option in ({"classvalue_field": "x"}, {"buffer_radius": 3}):
        with pytest.raises(DataError, match=next(iter(option))):
            export(tmp_path, raster, labels, metadata_format=TILES, **option)


def test_rasters_and_features_are_told_apart() -> None:
    for name in (
        "a.tif",
        "b.vrt",
        "store.zarr/",
        "s3://x/y.jp2",
        Path("c.img"),
        "https://x/a.tif?t=1",
    ):
        assert is_raster(name)
    for name in (
        "a.gpkg",
        "a.shp",
        "b.parquet",
        "c.geojson",
        "d.fgb",
        "folder.gdb",
        "https://x/a.gpkg?t=1",
    ):
        assert not is_raster(name)
    assert not is_raster(frame(box(1, 1)))
    assert not is_raster(frame(box(1, 1)).geometry)


# -- classes ----------------------------------------------------------------------------------


def test_class_fields_are_found_by_themselves_in_any_case() -> None:
    for name in ("Classvalue", "VALUE", "class_value"):
        values, table = classes_of(pd.DataFrame({"x": [9, 9], name: [3, 5]}), None)
        assert values.tolist() == [3, 5]
        assert table.names == ["3", "5"]
    values, table = classes_of(pd.DataFrame({"x": [9, 9]}), None)
    assert (values.tolist(), table.names) == ([1, 1], ["1"])


def test_names_come_from_the_field_beside_the_values() -> None:
    table = pd.DataFrame({"Value": [2, 1, 2], "ClassName": ["b", "a", "b"]})
    assert classes_of(table, None)[1].names == ["a", "b"]
    # Not one name for each value: the field holds something else.
    table = pd.DataFrame({"Value": [2, 1, 2], "Class": ["b", "a", "c"]})
    assert classes_of(table, None)[1].names == ["1", "2"]


def test_texts_are_numbered_in_alphabetical_order_and_digits_are_numbers() -> None:
    values, table = classes_of(pd.DataFrame({"kind": ["tree", "house", "tree"]}), "Kind")
    assert values.tolist() == [2, 1, 2]
    assert table.names == ["house", "tree"]
    values, table = classes_of(pd.DataFrame({"kind": ["7", "3"]}), "kind")
    assert values.tolist() == [7, 3]
    assert classes_of(pd.DataFrame({"kind": [4.0, 2.0]}), "kind")[0].tolist() == [4, 2]


def test_known_classes_keep_their_values_and_conflicts_are_named() -> None:
    known = ClassTable.from_mapping({1: "tree", 4: "house"})
    values, table = classes_of(pd.DataFrame({"kind": ["house", "barn"]}), "kind", known)
    assert values.tolist() == [4, 5]
    assert table.names == ["tree", "house", "barn"]
    numbers = pd.DataFrame({"value": [4], "classname": ["barn"]})
    with pytest.raises(DataError, match=r"Class 4 is 'barn'.*'house'"):
        classes_of(numbers, None, known)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1, None, 3], r"1 of 3 labels have no class in field 'kind' \(rows 1"),
        (["a", None, " "], "2 of 3 labels"),
        ([1, "tree", 2], "mixes class numbers.*'tree'"),
        (["1", "tree", "x"], "mixes"),
        ([1.5, 2, 3], r"mixes.*1\.5"),
        ([True, False, True], "mixes"),
        ([0, 1, 2], "background"),
        ([2**40, 1, 2], "mixes"),
    ],
)
def test_classes_that_cannot_be_used_are_named(column: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        classes_of(pd.DataFrame({"kind": pd.Series(column, dtype=object)}), "kind")


@pytest.mark.parametrize(
    ("kinds", "name"), [([2.0, np.nan, 2.0, None], "2"), (["oak", None, "oak", " "], "oak")]
)
def test_features_without_a_class_are_left_out_and_counted(
    tmp_path: Path, raster: Path, kinds: list[Any], name: str
) -> None:
    labels = frame(box(5, 5), box(20, 5), box(5, 20), box(20, 20), kind=kinds)
    with pytest.warns(DataWarning, match="2 have no class and are left out"):
        folder = export(tmp_path, raster, labels, classvalue_field="kind", tile_size=32)
    assert folder.classes.names == [name]
    assert sum((folder.class_counts or {}).values()) == 2
    with pytest.raises(DataError, match="4 of 4 labels have no class"):
        export(tmp_path, raster, labels.assign(kind=None), classvalue_field="kind")


def test_points_without_a_radius_label_whole_chips(tmp_path: Path, raster: Path) -> None:
    points = frame(box(5, 5).centroid, box(40, 5).centroid, classvalue=[1, 3])
    folder = export(tmp_path, raster, points, metadata_format="MultiLabeled_Tiles", tile_size=32)
    found = [folder.chip_format.read_label(ref, folder).values.tolist() for ref in folder.chips]
    assert found == [[1], [3]]


def test_a_class_field_that_does_not_exist_lists_those_that_do(
    tmp_path: Path, raster: Path
) -> None:
    labels = frame(box(5, 5), landuse=[1], name=["x"])
    with pytest.raises(DataError, match=r"'landuses'.*Did you mean 'landuse'.*landuse, name"):
        export(tmp_path, raster, labels, classvalue_field="landuses")


# -- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tile_size": 97}, PlanError, "larger than the raster"),
        ({"tile_size": {"x": 32, "y": 65}}, PlanError, "32 x 65"),
        ({"tile_size": {"x": 32}}, OptionError, "lacks 'y'"),
        ({"tile_size": {"x": 32, "y": 32, "z": 1}}, UnknownOptionError, "z"),
        ({"stride_size": 0}, OptionError, "stride_size"),
        ({"stride_size": "far"}, OptionError, "stride_size"),
        ({"chip_format": "GIF"}, OptionError, "chip_format"),
        ({"metadata_format": "Classified_Tile"}, NotSupportedError, "Classified_Tiles"),
        ({"reference_system": "OUTER_SPACE"}, OptionError, "reference_system"),
        ({"min_polygon_overlap_ratio": 1.5}, OptionError, "min_polygon_overlap_ratio"),
        ({"buffer_radius": -1}, OptionError, "buffer_radius"),
        ({"classvalue_field": 3}, OptionError, "classvalue_field"),
        ({"context": {"exportalltiles": True}}, UnknownOptionError, "exportAllTiles"),
        ({"context": {"startIndex": -1}}, OptionError, "startIndex"),
        ({"context": {"startIndex": 10**9}}, OptionError, "nine digits"),
        ({"context": {"cellSize": 0}}, OptionError, "cellSize"),
        ({"context": {"cellSize": {"x": 1, "y": 2}}}, OptionError, "square"),
        ({"context": {"extent": [1, 2, 3, 4]}}, OptionError, "extent"),
        (
            {"context": {"extent": {"xmin": 0, "ymin": 0, "xmax": 1, "ymax": 1}}},
            PlanError,
            "does not overlap",
        ),
        ({"rotation_angle": 360}, OptionError, "rotation_angle"),
        ({"rotation_angle": 0.5}, OptionError, "rotation_angle"),
        ({"fix_chip_size": False}, OptionError, "fix_chip_size is for Labeled_Tiles"),
        ({"blacken_around_feature": True}, OptionError, "blacken_around_feature is for"),
        ({"input_instance_data": "x.shp"}, OptionError, "input_instance_data is for Panoptic"),
        ({"instance_class_value_field": "x"}, OptionError, "instance_class_value_field is for"),
        ({"additional_input_raster": "x.tif"}, OptionError, "additional_input_raster is for"),
        ({"metadata_format": "Panoptic_Segmentation"}, OptionError, "give input_instance_data"),
        ({"metadata_format": "CycleGAN"}, OptionError, "give additional_input_raster"),
        ({"gis": "portal"}, OptionError, "gis=.*output_location"),
        ({"tilesize": 3}, UnknownOptionError, "tilesize"),
        ({"classvalue_field": 75, "buffer_radius": "demo"}, OptionError, "output_location"),
        ({"output_location": 7}, OptionError, "output_location"),
        ({"block_size": 0}, OptionError, "block_size"),
    ],
)
def test_arguments_outside_their_domain_are_named(
    tmp_path: Path, raster: Path, options: dict[str, Any], error: type[GeodlError], message: str
) -> None:
    with pytest.raises(error, match=message):
        export(tmp_path, raster, frame(box(5, 5)), **options)
    assert not (tmp_path / "out").exists()


def test_pixels_that_a_chip_format_cannot_hold_are_refused(
    tmp_path: Path, write_raster: Any
) -> None:
    wide = write_raster(np.ones((5, 64, 64), np.float32))
    for chip_format in ("PNG", "JPEG"):
        with pytest.raises(OptionError, match="TIFF"):
            export(tmp_path, wide, frame(box(5, 5)), chip_format=chip_format)


def test_mask_polygons_must_be_polygons_and_hold_a_chip(tmp_path: Path, raster: Path) -> None:
    with pytest.raises(DataError, match="no polygons"):
        export(
            tmp_path, raster, frame(box(5, 5)),
            input_mask_polygons=frame(shapely.Point(500001, 4999999)),
        )  # fmt: skip
    with pytest.raises(DataError, match="inside the mask polygons"):
        export(tmp_path, raster, frame(box(5, 5)), input_mask_polygons=frame(box(0, 0, 31)))


def test_a_broken_export_is_not_added_to(tmp_path: Path, raster: Path) -> None:
    export(tmp_path, raster, frame(box(5, 5)))
    (tmp_path / "out" / "esri_accumulated_stats.json").write_text("{")
    with pytest.raises(FormatError, match="esri_accumulated_stats"):
        export(tmp_path, raster, frame(box(5, 5)), context={"startIndex": 50})


def test_neither_torch_nor_dask_is_loaded() -> None:
    code = (
        "import sys; import geodl.tools.export_training_data, geodl.formats.pascal_voc, "
        "geodl.formats.classified_tiles, geodl.formats.kitti; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
