"""Arguments of the export in combination: what each does, it does beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from geodl.base.errors import DataError
from geodl.formats import ChipFolder, open_export, validate_export
from geodl.formats.images import open_image, read_image
from geodl.tools.chip_job import ExportJob
from geodl.tools.export_training_data import export_training_data

ROWS, COLS = 90, 110
TRANSFORM = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000)


def write(path: Path, data: np.ndarray, transform: rasterio.Affine = TRANSFORM) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(data), height=data.shape[1], width=data.shape[2],
        dtype=data.dtype, crs="EPSG:32633", transform=transform,
    ) as file:  # fmt: skip
        file.write(data)
    return path


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One band of values that tell each pixel from its neighbours; none is 0."""
    values = np.random.default_rng(5).integers(1, 60000, (1, ROWS, COLS)).astype(np.uint16)
    return write(tmp_path_factory.mktemp("raster") / "scene.tif", values)


def frame_of(boxes: list[tuple[float, ...]], **columns: list[Any]) -> gpd.GeoDataFrame:
    """Boxes in pixels (x0, y0, x1, y1) as features on the map."""
    x0, y0, x1, y1 = np.array(boxes).T
    shapes = shapely.box(x0 / 2 + 500000, 5000000 - y1 / 2, x1 / 2 + 500000, 5000000 - y0 / 2)
    given = columns or {"classvalue": [1] * len(boxes)}
    return gpd.GeoDataFrame(given, geometry=shapes, crs="EPSG:32633")


def export(raster: Any, labels: Any, out: Path, mode: str, **options: Any) -> ChipFolder:
    settings = {"tile_size": 30, "stride_size": 20, "progress": False} | options
    path = export_training_data(
        raster, labels, metadata_format=mode, output_location=out, **settings
    )
    assert [str(fault) for fault in validate_export(path) if fault.level == "error"] == []
    return open_export(path)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


BOXES = [(10, 12, 32, 30), (40, 41, 52, 70), (70, 20, 100, 33)]


@pytest.mark.parametrize("mode", ["PASCAL_VOC_rectangles", "RCNN_Masks", "Labeled_Tiles"])
def test_all_chips_are_those_that_a_look_at_each_would_take(
    tmp_path: Path, raster: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the chip at column 60 and row 20 the copy turned by 45 degrees alone is in the diamond.
    diamond = shapely.Point(500000 + 75 / 2, 5000000 - 35 / 2).buffer(21.5 / 2, quad_segs=1)
    allowed = [*frame_of([(0, 0, 61.5, 200)]).geometry, diamond]

    def once(out: Path) -> dict[str, bytes]:
        folder = export(
            [raster, raster], frame_of(BOXES), out, mode, rotation_angle=45, block_size=60,
            context={"exportAllTiles": True}, process_all_raster_items=True,
            input_mask_polygons=gpd.GeoDataFrame(geometry=allowed, crs="EPSG:32633"),
        )  # fmt: skip
        return content(folder.path)

    known = once(tmp_path / "known")
    monkeypatch.setattr(ExportJob, "takes_all", False)
    assert once(tmp_path / "looked") == known
    assert len([name for name in known if name.startswith("images")]) > 2


def test_copies_of_class_and_second_rasters_turn_as_their_image_does(
    tmp_path: Path, raster: Path
) -> None:
    # The image is its own class raster and second raster: turned pixels must stay equal.
    with rasterio.open(raster) as file:
        few = write(tmp_path / "few.tif", (file.read() % 250 + 1).astype(np.uint8))
    tiles = export(few, few, tmp_path / "tiles", "Classified_Tiles", rotation_angle=120,
                   stride_size=30, additional_input_raster=few, block_size=40)  # fmt: skip
    angles = set()
    for ref in tiles.chips:
        image = read_image(ref.image).data
        label = tiles.chip_format.read_label(ref, tiles)
        assert np.array_equal(label.values, image[0])
        second = tiles.path / "images2" / ref.image.name
        assert np.array_equal(read_image(second).data, image)
        with open_image(ref.image) as one, open_image(second) as two:
            assert one.transform == two.transform
            angles.add(round(float(np.degrees(np.arctan2(one.transform.d, one.transform.a)))))
    assert len(angles) == 3


def test_copies_of_a_finer_second_raster_lie_on_the_same_ground(
    tmp_path: Path, raster: Path
) -> None:
    with rasterio.open(raster) as file:
        pixels = file.read()
    fine = write(tmp_path / "fine.tif", pixels.repeat(2, 1).repeat(2, 2),
                 TRANSFORM @ rasterio.Affine.scale(0.5))  # fmt: skip
    pairs = export(raster, None, tmp_path / "out", "Export_Tiles", rotation_angle=90,
                   additional_input_raster=fine)  # fmt: skip
    for ref in pairs.chips:
        image = read_image(ref.image).data
        second = read_image(pairs.path / "images2" / ref.image.name).data
        assert np.array_equal(second, image.repeat(2, 1).repeat(2, 2))


def test_a_feature_cut_by_a_copy_is_dropped_by_its_share(tmp_path: Path, raster: Path) -> None:
    # It fills the chip: turned by odd multiples of 45 degrees its corners leave it.
    field = frame_of([(0, 0, 30, 30)])
    options: dict[str, Any] = {"rotation_angle": 45, "stride_size": 200}
    every = export(raster, field, tmp_path / "a", "PASCAL_VOC_rectangles", **options)
    whole = export(raster, field, tmp_path / "b", "PASCAL_VOC_rectangles",
                   min_polygon_overlap_ratio=1, **options)  # fmt: skip
    assert len(every.chips) == 8
    boxes = [whole.chip_format.read_label(ref, whole).boxes.tolist() for ref in whole.chips]
    assert boxes == [[[0, 0, 30, 30]]] * 4


def test_black_chips_of_many_sizes_turn_with_their_feature(tmp_path: Path, raster: Path) -> None:
    folder = export(raster, frame_of(BOXES), tmp_path / "out", "Labeled_Tiles", rotation_angle=180,
                    fix_chip_size=False, blacken_around_feature=True)  # fmt: skip
    images = [read_image(ref.image).data for ref in folder.chips]
    assert len(images) == 2 * len(BOXES)
    for image, turned in zip(images[: len(BOXES)], images[len(BOXES) :], strict=True):
        assert np.array_equal(turned, image[:, ::-1, ::-1])
        assert image.all()


def test_extent_cell_size_mask_and_start_index_together(tmp_path: Path, raster: Path) -> None:
    corner = {"xmin": 500005, "ymin": 4999960, "xmax": 500050, "ymax": 4999995}
    folder = export(
        raster, frame_of(BOXES), tmp_path / "out", "Classified_Tiles", tile_size=10, stride_size=10,
        context={"extent": corner, "cellSize": 1, "startIndex": 5, "exportAllTiles": True},
        input_mask_polygons=frame_of([(0, 0, 70, 60)]),
    )  # fmt: skip
    places = []
    for ref in folder.chips:
        with open_image(ref.image) as file:
            places.append((file.transform.c, file.transform.f, file.transform.a))
    assert [ref.name for ref in folder.chips] == [f"{n:09d}" for n in range(5, 5 + len(places))]
    # The mask ends at x 500035, y 4999970: three by two chips of 10 m from the extent's corner.
    assert places == [(500005 + 10 * i, 4999995 - 10 * j, 1) for j in range(2) for i in range(3)]


@pytest.mark.parametrize("space", ["IMAGE_SPACE", "PIXEL_SPACE"])
def test_copies_outside_map_space_lie_on_the_pixels_of_the_image(
    tmp_path: Path, raster: Path, space: str
) -> None:
    folder = export(raster, frame_of(BOXES), tmp_path / "out", "PASCAL_VOC_rectangles",
                    rotation_angle=90, reference_system=space)  # fmt: skip
    with rasterio.open(raster) as file:
        pixels = file.read()
    for ref in folder.chips:
        with open_image(ref.image) as file:
            here, data = file.transform, file.read()
        col, row = np.meshgrid(np.arange(30) + 0.5, np.arange(30) + 0.5)
        x, y = here @ (col, row)
        assert np.array_equal(data, pixels[:, np.floor(y).astype(int), np.floor(x).astype(int)])


def test_pairs_of_domains_have_copies_and_masks(tmp_path: Path, raster: Path) -> None:
    path = Path(
        export_training_data(
            raster, metadata_format="CycleGAN", additional_input_raster=raster, tile_size=30,
            rotation_angle=180, input_mask_polygons=frame_of([(0, 0, 65, 65)]), progress=False,
            output_location=tmp_path / "pair",
        )
    )  # fmt: skip
    sides = [open_export(path / name) for name in ("A", "B")]
    assert [len(side) for side in sides] == [8, 8]
    for one, two in zip(*(side.chips for side in sides), strict=True):
        assert np.array_equal(read_image(one.image).data, read_image(two.image).data)


def test_panoptic_labels_turn_with_both_their_parts(tmp_path: Path, raster: Path) -> None:
    numbers = np.zeros((1, ROWS, COLS), np.uint8)
    numbers[0, 12:30, 10:32], numbers[0, 41:70, 40:52] = 1, 2
    things = write(tmp_path / "numbers.tif", numbers)
    classes = write(tmp_path / "classes.tif", (numbers > 0).astype(np.uint8))
    folder = export(raster, classes, tmp_path / "out", "Panoptic_Segmentation", rotation_angle=60,
                    input_instance_data=things)  # fmt: skip
    assert len(folder.chips) > 12
    for ref in folder.chips:
        label = folder.chip_format.read_label(ref, folder)
        assert np.array_equal(label.instances.masks.any(axis=0), label.values > 0)


def test_images_that_the_second_raster_does_not_reach_have_no_chips(
    tmp_path: Path, raster: Path
) -> None:
    with rasterio.open(raster) as file:
        pixels = file.read()
    east = write(tmp_path / "east.tif", pixels, TRANSFORM @ rasterio.Affine.translation(COLS, 0))
    pairs = export([raster, east], None, tmp_path / "out", "Export_Tiles", stride_size=30,
                   process_all_raster_items=True, additional_input_raster=east)  # fmt: skip
    assert len(pairs.chips) == (ROWS // 30) * (COLS // 30)
    with open_image(pairs.chips[0].image) as file:
        assert file.transform.c == TRANSFORM.c + COLS / 2
    with pytest.raises(DataError, match=r"second raster .* nowhere overlaps"):
        export(raster, None, tmp_path / "none", "Export_Tiles", additional_input_raster=east)


def test_a_radius_is_for_the_features_of_panoptic_labels(tmp_path: Path, raster: Path) -> None:
    classes = write(tmp_path / "classes.tif", np.ones((1, ROWS, COLS), np.uint8))
    trunks = frame_of([(40, 30, 41, 31)])
    trunks["geometry"] = trunks.centroid
    folder = export(raster, classes, tmp_path / "out", "Panoptic_Segmentation", stride_size=30,
                    input_instance_data=trunks, buffer_radius=2.4)  # fmt: skip
    masks = [folder.chip_format.read_label(ref, folder).instances.masks for ref in folder.chips]
    areas = [int(mask.sum()) for mask in masks if len(mask)]
    # Of the pixels around its middle 69 lie within 2.4 m; the chip above has some of them.
    assert len(areas) == 2
    assert sum(areas) == 69
    with pytest.raises(DataError, match="buffer_radius is for features"):
        export(raster, classes, tmp_path / "none", "Panoptic_Segmentation",
               input_instance_data=classes, buffer_radius=2.4)  # fmt: skip
