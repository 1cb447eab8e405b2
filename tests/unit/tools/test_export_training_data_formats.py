"""Every chip format of the export against rasterio and shapely called directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize

from geodl.base.errors import DataError, DataWarning, OutputExistsError
from geodl.formats import ChipFolder, count_labels, open_export
from geodl.formats.images import open_image, read_image
from geodl.formats.panoptic import instance_classes
from geodl.io.writers.categories import write_categories
from geodl.testing import Scene, make_scene
from geodl.tools.export_training_data import export_training_data

SIZE = 64
# (rows, columns) of the scene; its lower right rest belongs to no chip.
SHAPE = (200, 280)
BOXES = [(10, 10, 30, 26), (20, 16, 50, 40), (100, 70, 140, 110), (150, 140, 152, 200)]
VALUES = [1, 1, 2, 2]


def frame_of(boxes: Any, values: Any = None, field: str = "classvalue") -> gpd.GeoDataFrame:
    """Boxes in pixels (x0, y0, x1, y1) of the rasters that ``write_raster`` makes."""
    shapes = [
        shapely.box(500000 + x0 / 2, 5000000 - y1 / 2, 500000 + x1 / 2, 5000000 - y0 / 2)
        for x0, y0, x1, y1 in boxes
    ]
    columns = {} if values is None else {field: values}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32633")


@pytest.fixture
def raster(write_raster: Any) -> Path:
    rng = np.random.default_rng(2)
    return write_raster(rng.integers(1, 255, (3, *SHAPE), np.uint8))


def export(tmp_path: Path, raster: Any, labels: Any, mode: str, **options: Any) -> ChipFolder:
    options = {"tile_size": SIZE, "progress": False, "output_location": tmp_path / "out"} | options
    path = export_training_data(raster, labels, metadata_format=mode, **options)
    return open_export(path) if mode != "CycleGAN" else open_export(Path(path) / "A")


def masks_of(folder: ChipFolder, ref: Any, boxes: Any, values: Any) -> list[tuple[int, bytes]]:
    """Instances that a chip should hold, burnt one by one by rasterio in the chip's own place."""
    with rasterio.open(ref.image) as dataset:
        transform, shape = dataset.transform, dataset.shape
    found = []
    for geometry, value in zip(frame_of(boxes).geometry, values, strict=True):
        mask = rasterize([geometry], out_shape=shape, transform=transform, dtype="uint8")
        if mask.any():
            found.append((value, mask.tobytes()))
    return sorted(found)


def known(label: Any) -> list[tuple[int, bytes]]:
    pairs = zip(label.values.tolist(), label.masks.astype(np.uint8), strict=True)
    return sorted((value, mask.tobytes()) for value, mask in pairs)


@pytest.mark.parametrize("mode", ["RCNN_Masks", "COCO_instances"])
@pytest.mark.parametrize("angle", [0, 50])
def test_instances_are_each_burnt_alone_also_where_they_overlap(
    tmp_path: Path, raster: Path, mode: str, angle: float
) -> None:
    labels = frame_of(BOXES, VALUES)
    folder = export(tmp_path, raster, labels, mode, stride_size=48, rotation_angle=angle)
    assert len(folder) > (20 if angle else 5)
    for ref in folder.chips:
        expected = masks_of(folder, ref, BOXES, VALUES)
        assert known(folder.chip_format.read_label(ref, folder)) == expected
        assert expected
    assert folder.class_counts == count_labels(folder)


def test_a_folder_for_each_class_and_a_band_for_each_layer(tmp_path: Path, raster: Path) -> None:
    labels = frame_of(BOXES, ["tree/fir", "tree/fir", "roof", "roof"], "kind")
    folder = export(tmp_path, raster, labels, "RCNN_Masks", classvalue_field="kind")
    assert folder.classes.names == ["roof", "tree_fir"]
    with rasterio.open(folder.path / "labels" / "tree_fir" / "000000000.tif") as dataset:
        assert (dataset.count, dataset.dtypes[0]) == (2, "uint8")
        assert [dataset.read(n).max() for n in (1, 2)] == [1, 1]
    line = (folder.path / "map.txt").read_text().splitlines()[0]
    assert line == "images\\000000000.tif  labels\\tree_fir\\000000000.tif "


def test_one_tile_centred_on_each_feature(tmp_path: Path, raster: Path) -> None:
    labels = frame_of(BOXES, ["a", "b", "a", "c"], "kind")
    with pytest.warns(DataWarning, match="1 of 4 features are left out"):
        folder = export(tmp_path, raster, labels, "Labeled_Tiles", classvalue_field="kind",
                        tile_size={"x": 64, "y": 32})  # fmt: skip
    with rasterio.open(raster) as dataset:
        pixels = dataset.read()
    labels = [folder.chip_format.read_label(ref, folder) for ref in folder.chips]
    assert [label.values.tolist() for label in labels] == [[2], [1], [3]]
    corners = [(28 - 16, 35 - 32), (90 - 16, 120 - 32), (170 - 16, 151 - 32)]
    for ref, (row, col) in zip(folder.chips, corners, strict=True):
        assert np.array_equal(read_image(ref.image).data, pixels[:, row : row + 32, col : col + 64])
    assert folder.class_counts == {1: 1, 2: 1, 3: 1}
    emd = json.loads((folder.path / "esri_model_definition.emd").read_text())
    assert (emd["CropTileMode"], emd["BlackenAroundFeature"]) == ("Fixed_Size", False)


def test_chips_may_have_the_bounds_of_their_feature_and_black_around_it(
    tmp_path: Path, raster: Path
) -> None:
    labels = frame_of(BOXES, VALUES)
    circle = shapely.Point(500060, 4999955).buffer(7.3)
    labels.loc[len(labels)] = [2, circle]
    folder = export(tmp_path, raster, labels, "Labeled_Tiles", fix_chip_size=False,
                    blacken_around_feature=True)  # fmt: skip
    assert not folder.fixed_size
    with rasterio.open(raster) as dataset:
        pixels, transform = dataset.read(), dataset.transform
    for ref, geometry in zip(folder.chips, labels.geometry, strict=True):
        inside = rasterize([geometry], out_shape=SHAPE, transform=transform, dtype="uint8")
        col, row = (round(v) for v in ~transform @ rasterio.open(ref.image).transform[2:6:3])
        data = read_image(ref.image).data
        there = np.s_[row : row + data.shape[1], col : col + data.shape[2]]
        assert np.array_equal(data, pixels[:, *there] * inside[there])
        assert inside[there].sum() == inside.sum()


def test_regions_of_a_class_raster_are_its_features(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    classes = np.zeros((1, *SHAPE), np.uint8)
    classes[0, 60:64, 60:70] = 3
    classes[0, 64:70, 70:80] = 3  # touches at a corner
    classes[0, 120:130, 200:230] = 5
    path = write_raster(classes, "classes.tif")
    folder = export(tmp_path, raster, path, "Labeled_Tiles", tile_size=40)
    labels = [folder.chip_format.read_label(r, folder).values.tolist() for r in folder.chips]
    assert sorted(labels) == [[3], [5]]
    windows = set()
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            windows.add((round((5000000 - dataset.transform.f) * 2),
                         round((dataset.transform.c - 500000) * 2)))  # fmt: skip
    assert windows == {(45, 50), (105, 195)}


def test_several_classes_of_a_chip_stand_between_commas(tmp_path: Path, raster: Path) -> None:
    labels = frame_of(BOXES, ["fir", "oak", "fir", "a,b"], "kind")
    folder = export(tmp_path, raster, labels, "MultiLabeled_Tiles", classvalue_field="kind")
    assert folder.classes.names == ["a,b", "fir", "oak"]
    boxes = np.array(BOXES)
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            col, row = (dataset.transform.c - 500000) * 2, (5000000 - dataset.transform.f) * 2
        clipped = np.clip(boxes - [col, row, col, row], 0, SIZE)
        inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        expected = sorted({[2, 3, 2, 1][n] for n in np.flatnonzero(inside)})
        assert folder.chip_format.read_label(ref, folder).values.tolist() == expected
    text = (folder.path / "labels" / f"{folder.chips[0].name}.xml").read_text()
    assert "<name>fir,oak</name>" in text
    assert "<name>1</name>" in (folder.path / "labels" / f"{folder.chips[-1].name}.xml").read_text()


def test_images_in_a_folder_of_their_class(tmp_path: Path, raster: Path) -> None:
    labels = frame_of(BOXES, ["v. 1", "b", "b", "b"], "kind")
    folder = export(tmp_path, raster, labels, "Imagenet", classvalue_field="kind", tile_size=20)
    assert folder.classes.names == ["b", "v_ 1"]
    assert [r.image.parent.name for r in folder.chips] == ["v_ 1", "b", "b", "b"]
    assert (folder.path / "map.txt").read_text().splitlines()[1] == "images\\b\\000000001.tif "
    assert not (folder.path / "labels").exists()


def test_images_alone_need_no_labels(tmp_path: Path, raster: Path) -> None:
    folder = export(tmp_path, raster, None, "Export_Tiles")
    assert len(folder) == 3 * 4
    assert len(folder.classes) == 0
    assert not (folder.path / "labels").exists()
    some = export(tmp_path, raster, frame_of(BOXES[:1]), "Export_Tiles",
                  output_location=tmp_path / "some")  # fmt: skip
    assert [ref.name for ref in some.chips] == ["000000000"]


def test_a_second_raster_of_the_same_pixels(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    later = np.arange(2 * 200 * 280, dtype=np.uint16).reshape(2, 200, 280)
    other = write_raster(later, "later.tif")
    folder = export(tmp_path, raster, frame_of(BOXES, VALUES), "Classified_Tiles",
                    additional_input_raster=other, rotation_angle=90)  # fmt: skip
    assert len(folder) % 4 == 0
    for ref in folder.chips:
        pair = read_image(folder.path / "images2" / ref.image.name).data
        with open_image(ref.image) as dataset:
            here = dataset.transform
        cols, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
        x, y = here @ (cols, rows)
        row, col = ((5000000 - y) * 2).astype(int), ((x - 500000) * 2).astype(int)
        assert np.array_equal(pair, later[:, row, col])
    emd = json.loads((folder.path / "esri_model_definition.emd").read_text())
    stack = np.stack([read_image(p).data for p in sorted((folder.path / "images2").glob("*.tif"))])
    assert [b["Mean"] for b in emd["AllTilesStats2"]] == pytest.approx(stack.mean(axis=(0, 2, 3)))


def test_a_finer_second_raster_keeps_its_pixels(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    fine = np.random.default_rng(0).integers(1, 200, (1, 480, 560), np.uint8)
    place = rasterio.Affine(0.25, 0, 500000 + 5, 0, -0.25, 5000000 - 10)
    other = write_raster(fine, "fine.tif", transform=place)
    folder = export(tmp_path, raster, None, "Export_Tiles", additional_input_raster=other,
                    chip_format="PNG")  # fmt: skip
    pair = read_image(folder.path / "images2" / "000000000.png").data
    assert pair.shape == (1, 128, 128)
    assert np.array_equal(pair[:, 40:, 20:], fine[:, :88, :108])
    assert not pair[:, :40].any()


def test_pairs_are_added_to_pairs_of_the_same_kind_only(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    rng = np.random.default_rng(0)
    two = write_raster(rng.integers(1, 200, (2, *SHAPE), np.uint8), "two.tif")
    one = write_raster(rng.integers(1, 200, (1, *SHAPE), np.uint8), "one.tif")
    folder = export(tmp_path, raster, None, "Export_Tiles", additional_input_raster=two)
    more: dict[str, Any] = {"context": {"startIndex": 100}}
    for other in (None, one):
        with pytest.raises(DataError, match=r"second raster \(images2\).*64 x 64 pixels with 2"):
            export(tmp_path, raster, None, "Export_Tiles", additional_input_raster=other, **more)
    assert not list((folder.path / "images").glob("000000100*"))
    both = export(tmp_path, raster, None, "Export_Tiles", additional_input_raster=two, **more)
    names = [ref.image.name for ref in both.chips]
    assert len(names) == 2 * len(folder)
    assert sorted(p.name for p in (both.path / "images2").glob("*.tif")) == sorted(names)
    alone = export(tmp_path, raster, None, "Export_Tiles", output_location=tmp_path / "alone")
    with pytest.raises(DataError, match="is None, that of the chips to be added 64 x 64"):
        export(tmp_path, raster, None, "Export_Tiles", additional_input_raster=two,
               output_location=alone.path, **more)  # fmt: skip


def test_a_second_raster_on_another_grid_is_resampled(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    shifted = rasterio.Affine(0.5, 0, 500000.2, 0, -0.5, 5000000)
    other = write_raster(np.full((1, *SHAPE), 7, np.uint8), "shifted.tif", transform=shifted)
    with pytest.warns(DataWarning, match="another grid"):
        folder = export(tmp_path, raster, None, "Export_Tiles", additional_input_raster=other)
    assert (read_image(folder.path / "images2" / "000000001.tif").data == 7).all()


def test_both_domains_are_an_export_each(tmp_path: Path, raster: Path, write_raster: Any) -> None:
    other = write_raster(np.ones((1, 130, 70), np.uint8), "other.tif")
    a = export(tmp_path, raster, None, "CycleGAN", additional_input_raster=other)
    b = open_export(tmp_path / "out" / "B")
    assert (len(a), a.bands, len(b), b.bands) == (12, 3, 2, 1)
    assert a.metadata_mode == b.metadata_mode == "CycleGAN"
    with pytest.raises(OutputExistsError, match="finished export"):
        export(tmp_path, raster, None, "CycleGAN", additional_input_raster=other)
    # A side that is there already is kept where the other one is missing.
    (tmp_path / "out" / "B" / "esri_model_definition.emd").unlink()
    stamp = (tmp_path / "out" / "A" / "map.txt").stat().st_mtime_ns
    with pytest.raises(OutputExistsError):
        export(tmp_path, raster, None, "CycleGAN", additional_input_raster=other)
    assert (tmp_path / "out" / "A" / "map.txt").stat().st_mtime_ns == stamp


def test_objects_lie_beside_the_classes_of_all_pixels(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    ground = np.ones((1, *SHAPE), np.uint8)
    ground[:, :, 150:] = 4
    classes = write_raster(ground, "ground.tif")
    write_categories(classes, table_of({1: "Grass", 2: "Tree"}), nodata=255)
    things = frame_of(BOXES, [2, 2, 4, 4])
    folder = export(tmp_path, raster, classes, "Panoptic_Segmentation",
                    input_instance_data=things)  # fmt: skip
    assert {e.value: e.name for e in folder.classes} == {1: "Grass", 2: "2", 4: "4"}
    assert instance_classes(folder).values == [2, 4]
    for ref in folder.chips:
        label = folder.chip_format.read_label(ref, folder)
        assert known(label.instances) == masks_of(folder, ref, BOXES, [2, 2, 4, 4])
    assert (folder.path / "labels2" / "2" / "000000000.tif").is_file()
    assert folder.class_counts == count_labels(folder)


def table_of(names: dict[int, str]) -> Any:
    from geodl.core.classes import ClassTable

    return ClassTable.from_mapping(names)


def test_objects_may_be_a_raster_of_their_numbers(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    numbers = np.zeros((1, *SHAPE), np.int32)
    numbers[0, 10:20, 10:20], numbers[0, 10:20, 20:30], numbers[0, 80:90, 80:90] = 70, 800, 70
    ids = write_raster(numbers, "ids.tif")
    folder = export(tmp_path, raster, frame_of(BOXES, [1, 1, 1, 1]), "Panoptic_Segmentation",
                    input_instance_data=ids)  # fmt: skip
    found = folder.chip_format.read_label(folder.chips[0], folder).instances
    assert found.values.tolist() == [1, 1]
    assert found.masks.sum(axis=(1, 2)).tolist() == [100, 100]


@pytest.mark.parametrize("mode", ["PASCAL_VOC_rectangles", "COCO_rectangles", "YOLO_rectangles"])
def test_copies_turn_with_their_boxes(tmp_path: Path, raster: Path, mode: str) -> None:
    folder = export(tmp_path, raster, frame_of(BOXES, VALUES), mode, rotation_angle=90)
    plain = export(tmp_path, raster, frame_of(BOXES, VALUES), mode,
                   output_location=tmp_path / "plain")  # fmt: skip
    count = len(plain)
    assert len(folder) == 4 * count
    for ref, copy in zip(folder.chips[:count], folder.chips[count : 2 * count], strict=True):
        image, turned = read_image(ref.image).data, read_image(copy.image).data
        assert np.array_equal(turned, np.rot90(image, axes=(1, 2)))
        boxes = folder.chip_format.read_label(ref, folder).boxes
        expected = np.stack(
            [boxes[:, 1], SIZE - boxes[:, 2], boxes[:, 3], SIZE - boxes[:, 0]], axis=1
        )
        found = folder.chip_format.read_label(copy, folder).boxes
        assert np.abs(found - expected).max() <= 0.0051


def test_a_turned_chip_lies_where_its_georeference_says(tmp_path: Path, raster: Path) -> None:
    labels = frame_of(BOXES, VALUES)
    folder = export(tmp_path, raster, labels, "Classified_Tiles", rotation_angle=33,
                    stride_size=50)  # fmt: skip
    with rasterio.open(raster) as dataset:
        pixels, transform = dataset.read(), dataset.transform
    for ref in folder.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
        shapes = list(zip(labels.geometry, VALUES, strict=True))
        expected = rasterize(shapes, out_shape=(SIZE, SIZE), transform=here, dtype="uint8")
        found = folder.chip_format.read_label(ref, folder).values
        assert (found != expected).mean() < 2e-3  # centres on an edge, tipped by rounding
        cols, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
        x, y = ~transform @ (here @ (cols, rows))
        inside = (x >= 0) & (y >= 0) & (x < SHAPE[1]) & (y < SHAPE[0])
        chip = read_image(ref.image)
        assert np.array_equal(chip.mask, inside)
        row, col = y[inside].astype(int), x[inside].astype(int)
        assert (chip.data[:, inside] != pixels[:, row, col]).mean() < 2e-3


def test_each_raster_of_a_list_may_be_an_image_of_its_own(
    tmp_path: Path, raster: Path, write_raster: Any
) -> None:
    east = rasterio.Affine(0.5, 0, 500000 + 64, 0, -0.5, 5000000)
    other = write_raster(np.full((3, 128, 128), 9, np.uint8), "east.tif", transform=east)
    far = write_raster(
        np.ones((3, 64, 64), np.uint8), "far.tif", transform=rasterio.Affine(0.5, 0, 0, 0, -0.5, 0)
    )
    folder = export(tmp_path, [raster, other, far], frame_of(BOXES, VALUES),
                    "PASCAL_VOC_rectangles", process_all_raster_items=True)  # fmt: skip
    alone = export(tmp_path, raster, frame_of(BOXES, VALUES), "PASCAL_VOC_rectangles",
                   output_location=tmp_path / "alone")  # fmt: skip
    assert [ref.name for ref in folder.chips] == [f"{n:09d}" for n in range(len(folder))]
    for ref in alone.chips:
        assert np.array_equal(
            read_image(ref.image).data, read_image(folder.path / "images" / ref.image.name).data
        )
    more = folder.chips[len(alone) :]
    assert more
    assert all((read_image(ref.image).data == 9).all() for ref in more)
    emd = json.loads((folder.path / "esri_model_definition.emd").read_text())
    assert emd["InputRastersProps"]["RasterCount"] == 2
    with pytest.raises(DataError, match="nowhere overlap"):
        export(tmp_path, [far], frame_of(BOXES), "PASCAL_VOC_rectangles",
               process_all_raster_items=True, output_location=tmp_path / "far")  # fmt: skip


ALL = ["RCNN_Masks", "Labeled_Tiles", "MultiLabeled_Tiles", "Export_Tiles", "Imagenet",
       "COCO_rectangles", "COCO_instances", "YOLO_rectangles"]  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), seed=4, size=(120, 140))


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.filterwarnings("ignore:.*features are left out")
@pytest.mark.parametrize("mode", ALL)
def test_bytes_do_not_depend_on_blocks(tmp_path: Path, scene: Scene, mode: str) -> None:
    results = [
        content(export(tmp_path, scene.raster, scene.labels, mode, tile_size=32,
                       rotation_angle=120, block_size=size,
                       output_location=tmp_path / str(size)).path)
        for size in (32, 500)
    ]  # fmt: skip
    assert results[0] == results[1]
    assert len(results[0]) > 8


@pytest.mark.filterwarnings("ignore:.*features are left out")
@pytest.mark.parametrize("mode", ALL)
def test_chips_are_added_and_deleted_again(tmp_path: Path, scene: Scene, mode: str) -> None:
    one = export(tmp_path, scene.raster, scene.labels, mode, tile_size=32)
    before = [(ref.name, one.chip_format.read_label(ref, one).values.tolist()) for ref in one.chips]
    both = export(tmp_path, scene.raster, scene.labels, mode, tile_size=32,
                  context={"startIndex": 1000})  # fmt: skip
    after = [(r.name, both.chip_format.read_label(r, both).values.tolist()) for r in both.chips]
    assert after[: len(one)] == before
    assert [values for _, values in after[len(one) :]] == [values for _, values in before]
    assert both.chips[len(one)].name == "000001000"
    if one.class_counts:
        assert both.class_counts == {value: 2 * n for value, n in one.class_counts.items()}
    again = export(tmp_path, scene.raster, scene.labels, mode, tile_size=32, overwrite=True)
    fresh = export(tmp_path, scene.raster, scene.labels, mode, tile_size=32,
                   output_location=tmp_path / "fresh")  # fmt: skip
    assert content(again.path) == content(fresh.path)
