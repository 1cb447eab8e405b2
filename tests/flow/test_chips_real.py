"""Chips of real imagery: labels lie where the source's own annotation says."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.features import rasterize

from geodl.data import prepare_data
from geodl.formats import ChipFolder, count_labels, open_export, validate_export
from geodl.formats.images import open_image, read_image
from geodl.tools.export_training_data import export_training_data

pytestmark = pytest.mark.real

VOC, TILES = "PASCAL_VOC_rectangles", "Classified_Tiles"


def export(tmp_path: Path, raster: Any, labels: Any, mode: str, **options: Any) -> ChipFolder:
    return open_export(
        export_training_data(
            raster, labels, metadata_format=mode, output_location=tmp_path / "chips",
            progress=False, **options,
        )
    )  # fmt: skip


def test_tree_crowns_of_osbs(sample_data: Path, tmp_path: Path) -> None:
    raster = sample_data / "trees_rgb" / "OSBS_029.tif"
    with open(sample_data / "trees_rgb" / "OSBS_029.csv", newline="") as file:
        rows = [
            [float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax")]
            for row in csv.DictReader(file)
        ]
    crowns = np.array(rows)
    with rasterio.open(raster) as dataset:
        transform, pixels = dataset.transform, dataset.read()
    corners = [(transform @ (x0, y1), transform @ (x1, y0)) for x0, y0, x1, y1 in crowns.tolist()]
    labels = gpd.GeoDataFrame(
        {"label": ["Tree"] * len(crowns)},
        geometry=[shapely.box(*low, *high) for low, high in corners],
        crs="EPSG:32617",
    )
    folder = export(
        tmp_path, raster, labels, VOC, tile_size=200, stride_size=100, classvalue_field="label"
    )
    assert folder.classes.names == ["Tree"]
    assert (folder.bands, folder.dtype, len(folder)) == (3, "uint8", 9)
    for ref in folder.chips:
        number = int(ref.name)
        row, col = number // 3 * 100, number % 3 * 100
        clipped = np.clip(crowns - [col, row, col, row], 0, 200)
        inside = clipped[((clipped[:, 2:] - clipped[:, :2]) >= 0.02).all(axis=1)]
        found = folder.chip_format.read_label(ref, folder).boxes
        assert found.shape == inside.shape
        assert np.abs(found - inside).max() <= 0.0051
        chip = read_image(ref.image)
        assert np.array_equal(chip.data, pixels[:, row : row + 200, col : col + 200])
        with open_image(ref.image) as dataset:
            assert dataset.nodata == 255
            assert dataset.crs.to_epsg() == 32617


@pytest.mark.parametrize(
    ("name", "chip_format", "bands"),
    [
        ("tiff_3channel_uint8.tif", "PNG", 3),
        ("tiff_8channel_uint8.tif", "TIFF", 8),
        ("tiff_1channel_uint16.tif", "MRF", 1),
    ],
)
def test_land_cover_of_vegas_from_polygons(
    sample_data: Path, tmp_path: Path, name: str, chip_format: str, bands: int
) -> None:
    source = sample_data / "vegas_landcover"
    labels = source / "tiff_3channel_uint8.geojson"
    folder = export(
        tmp_path, source / name, labels, TILES, tile_size={"x": 128, "y": 96},
        stride_size={"x": 100, "y": 96}, classvalue_field="label", chip_format=chip_format,
    )  # fmt: skip
    truth = np.array(Image.open(source / "mask_tiff_3channel_uint8.png"))
    with rasterio.open(source / name) as dataset:
        pixels, transform = dataset.read(), dataset.transform
    assert folder.bands == bands
    assert folder.classes.values == [1, 2, 3]
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            col, row = (round(v) for v in ~transform @ (dataset.transform.c, dataset.transform.f))
        window = np.s_[row : row + 96, col : col + 128]
        assert np.array_equal(read_image(ref.image).data, pixels[:, *window])
        assert np.array_equal(folder.chip_format.read_label(ref, folder).values, truth[window])


def test_the_mask_of_vegas_as_a_class_raster_of_plain_pixels(
    sample_data: Path, tmp_path: Path
) -> None:
    from geodl.base.errors import DataWarning

    source = sample_data / "vegas_landcover"
    with pytest.warns(DataWarning, match="states no CRS"):
        folder = export(
            tmp_path, source / "jpeg_3channel_uint8.jpeg", source / "mask_tiff_3channel_uint8.png",
            TILES, tile_size=125, chip_format="JPEG",
        )  # fmt: skip
    truth = np.array(Image.open(source / "mask_tiff_3channel_uint8.png"))
    total = {v: int((truth[:625] == v).sum()) for v in (1, 2, 3)}
    assert folder.class_counts == total


def test_building_footprints_over_heights(sample_data: Path, tmp_path: Path) -> None:
    source = sample_data / "elevation_buildings"
    raster = next(source.glob("*.tif"))
    buildings = next(path for path in source.iterdir() if path.suffix in (".geojson", ".gpkg"))
    folder = export(tmp_path, raster, buildings, TILES, tile_size=100, stride_size=50)
    assert folder.dtype == "float32"
    with rasterio.open(raster) as dataset:
        pixels, transform, crs = dataset.read(), dataset.transform, dataset.crs
    shapes = gpd.read_file(buildings).to_crs(crs).geometry
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
        col, row = (round(v) for v in ~transform @ (here.c, here.f))
        found = folder.chip_format.read_label(ref, folder).values
        expected = rasterize(list(shapes), out_shape=(100, 100), transform=here, dtype="uint8")
        assert np.array_equal(found, expected)
        same = np.s_[:, row : row + 100, col : col + 100]
        assert np.array_equal(read_image(ref.image).data, pixels[same], equal_nan=True)


def test_road_lines_widened_to_areas(sample_data: Path, tmp_path: Path) -> None:
    source = sample_data / "roads_vegas"
    raster = next(source.glob("*.tif"))
    lines = next(source.glob("*.geojson"))
    with rasterio.open(raster) as dataset:
        transform = dataset.transform
    radius = 8 * transform.a
    folder = export(tmp_path, raster, lines, TILES, tile_size=325, buffer_radius=radius)
    areas = shapely.buffer(gpd.read_file(lines).geometry.to_numpy(), radius, quad_segs=16)
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
        expected = rasterize(list(areas), out_shape=(325, 325), transform=here, dtype="uint8")
        found = folder.chip_format.read_label(ref, folder).values
        assert (found != expected).mean() < 1e-4


def test_a_voc_label_of_another_program_is_read(sample_data: Path, tmp_path: Path) -> None:
    source = sample_data / "trees_rgb"
    for name, suffix in (("images", ".png"), ("labels", ".xml")):
        (tmp_path / name).mkdir()
        for stem in ("SOAP_061", "OSBS_029"):
            data = (source / f"{stem}{suffix}").read_bytes()
            (tmp_path / name / f"{stem}{suffix}").write_bytes(data)
    folder = open_export(tmp_path, VOC)
    assert folder.classes.names == ["Alive", "Dead", "Tree"]
    for ref in folder.chips:
        objects = ET.parse(ref.labels[0]).getroot().findall("object")
        assert len(folder.chip_format.read_label(ref, folder)) == len(objects)


FORMATS_BESIDE = [
    "KITTI_rectangles", "PASCAL_VOC_rectangles", "Classified_Tiles", "RCNN_Masks", "Labeled_Tiles",
    "MultiLabeled_Tiles", "Export_Tiles", "Imagenet", "Panoptic_Segmentation", "COCO_rectangles",
    "COCO_instances", "YOLO_rectangles",
]  # fmt: skip


SCENES = ["trees_rgb", "vegas_landcover", "elevation_buildings", "roads_vegas", "eopatch_slovenia"]


def patch_of_slovenia(sample_data: Path, folder: Path) -> tuple[Path, Path]:
    """The 13 bands of one date, float32, and the land use, as rasters."""
    source = sample_data / "eopatch_slovenia"
    bands = np.load(source / "REFERENCE_SCENES.npy")[2].transpose(2, 0, 1)
    cover = np.load(source / "LULC.npy").transpose(2, 0, 1)
    bounds = gpd.read_file(source / "bbox.geojson").total_bounds
    place = rasterio.transform.from_bounds(*bounds, *bands.shape[:0:-1])
    paths = folder / "bands.tif", folder / "cover.tif"
    for path, data in zip(paths, (bands, cover), strict=True):
        with rasterio.open(
            path, "w", driver="GTiff", count=len(data), height=data.shape[1],
            width=data.shape[2], dtype=data.dtype, crs="EPSG:32633", transform=place,
        ) as file:  # fmt: skip
            file.write(data)
    return paths


def test_land_use_of_slovenia_over_thirteen_bands(sample_data: Path, tmp_path: Path) -> None:
    raster, cover = patch_of_slovenia(sample_data, tmp_path)
    with rasterio.open(cover) as dataset:
        truth = dataset.read(1)
    with rasterio.open(raster) as dataset:
        pixels, transform = dataset.read(), dataset.transform
    folder = export(tmp_path, raster, cover, TILES, tile_size=32, stride_size=17)
    assert (folder.bands, folder.dtype) == (13, "float32")
    assert folder.classes.values == [1, 2, 3, 4, 8]
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
        col, row = (round(v) for v in ~transform @ (here.c, here.f))
        window = np.s_[row : row + 32, col : col + 32]
        assert np.array_equal(folder.chip_format.read_label(ref, folder).values, truth[window])
        assert np.array_equal(read_image(ref.image).data, pixels[:, *window])
    assert [fault for fault in validate_export(folder.path) if fault.level == "error"] == []
    data = prepare_data(folder.path, transforms=False, batch_size=4)
    assert data.class_counts == folder.class_counts == count_labels(folder)
    assert data.train_ds[0]["image"].shape == (13, 32, 32)


def real_scene(sample_data: Path, name: str, folder: Path) -> tuple[Path, Any, dict[str, Any]]:
    """Image and features of a scene, and how to read the features."""
    source = sample_data / name
    if name == "eopatch_slovenia":
        raster, _ = patch_of_slovenia(sample_data, folder)
        cover = gpd.read_file(source / "LULC.gpkg")
        return raster, cover[cover["LULC_ID"] > 0], {"classvalue_field": "LULC_ID"}
    if name == "trees_rgb":
        raster = source / "OSBS_029.tif"
        rows = np.loadtxt(source / "OSBS_029.csv", delimiter=",", skiprows=1, usecols=(1, 2, 3, 4))
        with rasterio.open(raster) as dataset:
            to_map = dataset.transform
        low, high = to_map @ (rows[:, 0], rows[:, 3]), to_map @ (rows[:, 2], rows[:, 1])
        return raster, gpd.GeoDataFrame(geometry=shapely.box(*low, *high), crs="EPSG:32617"), {}
    raster, labels, options = {
        "vegas_landcover": ("tiff_8channel_uint8.tif", "tiff_3channel_uint8.geojson",
                            {"classvalue_field": "label"}),
        "elevation_buildings": ("*.tif", "*.geojson", {}),
        "roads_vegas": ("*.tif", "*.geojson", {"buffer_radius": 2e-5}),
    }[name]  # fmt: skip
    return next(source.glob(raster)), next(source.glob(labels)), options


@pytest.mark.filterwarnings("ignore:.*features are left out")
@pytest.mark.filterwarnings("ignore:.*invalid geometries, which were repaired")
@pytest.mark.filterwarnings("ignore:.*lie outside the raster")
@pytest.mark.parametrize("mode", FORMATS_BESIDE)
@pytest.mark.parametrize("scene", SCENES)
def test_every_format_of_real_scenes_is_valid_and_counts_what_it_holds(
    sample_data: Path, tmp_path: Path, scene: str, mode: str
) -> None:
    raster, features, options = real_scene(sample_data, scene, tmp_path)
    if mode == "Panoptic_Segmentation":
        options = options | {"input_instance_data": features}
        if "classvalue_field" in options:
            options = options | {"instance_class_value_field": options["classvalue_field"]}
    folder = export(
        tmp_path, raster, features, mode, tile_size=40 if scene == "eopatch_slovenia" else 120,
        rotation_angle=180, **options,
    )  # fmt: skip
    assert [str(f) for f in validate_export(folder.path) if f.level == "error"] == []
    assert len(folder) > 4
    if folder.class_counts:
        assert folder.class_counts == count_labels(folder)
