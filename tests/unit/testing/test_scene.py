"""The generated scene: the same for the same seed, georeferenced, labels on their objects."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features

from geodl.base.errors import OptionError
from geodl.testing import make_dates, make_scene
from geodl.testing.terrain import smooth_noise


def test_same_arguments_same_scene_another_seed_another(tmp_path: Path) -> None:
    pixels, labels = [], []
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        scene = make_scene(tmp_path / name, seed=seed, size=(128, 160))
        with rasterio.open(scene.raster) as file:
            pixels.append(file.read())
        labels.append(gpd.read_file(scene.labels))
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert labels[0].equals(labels[1])
    assert (pixels[0] != pixels[2]).mean() > 0.5


def test_scene_is_georeferenced_and_has_a_nodata_corner(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, size=(200, 300), cell_size=2.0, crs="EPSG:3857")
    with rasterio.open(scene.raster) as file:
        assert file.crs.to_epsg() == 3857
        assert file.res == (2.0, 2.0)
        assert (file.height, file.width) == scene.grid.shape == (200, 300)
        assert tuple(file.transform)[:6] == scene.grid.transform
        assert file.nodata == 0
        assert file.descriptions == ("red", "green", "blue")
        mask = file.dataset_mask() > 0
    assert not mask[-1, 0]
    assert mask[0].all()
    assert 0.9 < mask.mean() < 1
    whole = make_scene(tmp_path / "whole", size=(200, 300), nodata_corner=False)
    with rasterio.open(whole.raster) as file:
        assert (file.dataset_mask() > 0).all()


def test_class_raster_is_the_labels_burnt_in(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, size=(256, 256), seed=2)
    labels = gpd.read_file(scene.labels)
    assert labels.crs.to_epsg() == 32633
    assert labels.geometry.is_valid.all()
    assert set(labels.columns) == {"class_name", "classvalue", "geometry"}
    names = dict(zip(scene.classes.values, scene.classes.names, strict=True))
    assert (labels.classvalue.map(names) == labels.class_name).all()
    shapes = zip(labels.geometry, labels.classvalue, strict=True)
    burnt = rasterio.features.rasterize(shapes, (256, 256), transform=scene.grid.affine)
    with rasterio.open(scene.class_raster) as file:
        truth = file.read(1)
        assert file.nodata == 255
        assert file.transform == scene.grid.affine
    inside = truth != 255
    assert (burnt[inside] == truth[inside]).mean() > 0.999
    assert set(np.unique(truth)) == {0, 1, 2, 255}


def test_objects_look_unlike_the_ground(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, size=(384, 384), bands=4)
    with rasterio.open(scene.raster) as file, rasterio.open(scene.class_raster) as truth:
        red, _, _, infrared = file.read().astype(float)
        value = truth.read(1)
    ratio = infrared / (red + 1)
    assert np.median(ratio[value == 2]) > 1.5 * np.median(ratio[value == 0])
    assert np.median(ratio[value == 1]) < np.median(ratio[value == 0])


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
def test_any_number_of_bands(tmp_path: Path, bands: int) -> None:
    scene = make_scene(tmp_path, size=(96, 96), bands=bands, dtype="float32")
    with rasterio.open(scene.raster) as file:
        pixels = file.read()
        assert file.count == bands
        assert len(set(file.descriptions)) == bands
        assert file.nodata == -9999
    valid = pixels[0] != -9999
    assert pixels[:, valid].min() + 0.1 > 0
    assert pixels[:, valid].max() < 1.5
    for one in range(bands):
        for other in range(one):
            assert not np.array_equal(pixels[one], pixels[other])


@pytest.mark.parametrize(
    ("dtype", "largest"), [("uint8", 255), ("uint16", 10000), ("int16", 10000)]
)
def test_whole_numbers_leave_zero_to_nodata(tmp_path: Path, dtype: str, largest: int) -> None:
    scene = make_scene(tmp_path, size=(96, 96), dtype=dtype)
    with rasterio.open(scene.raster) as file:
        pixels = file.read()
        mask = file.dataset_mask() > 0
    assert pixels.dtype == dtype
    assert pixels[:, mask].min() >= 1
    assert largest * 0.4 < pixels.max() <= largest


def test_plain_pixels_have_no_crs(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, size=(128, 128), crs=None)
    assert scene.grid.crs is None
    labels = gpd.read_file(scene.labels)
    assert labels.crs is None
    xmin, ymin, xmax, ymax = labels.total_bounds
    assert xmin >= 0
    assert ymin >= 0
    assert max(xmax, ymax) <= 128


def test_degrees_lie_on_the_earth(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, size=(64, 64), crs="EPSG:4326", cell_size=5e-6)
    xmin, ymin, _, _ = scene.grid.bounds
    assert (xmin, ymin) == pytest.approx((15, 47), abs=0.01)


def test_kinds_that_are_not_asked_for_are_not_labelled(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, size=(512, 512), classes=("pad", "pond"))
    labels = gpd.read_file(scene.labels)
    assert set(labels.class_name) == {"pad", "pond"}
    assert scene.classes.names == ["pad", "pond"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ("tres",)}, "tree"),
        ({"classes": ()}, "at least one"),
        ({"classes": ("tree", "tree")}, "different"),
        ({"dtype": "uint9"}, "uint8"),
        ({"size": (63, 100)}, "64 x 64"),
        ({"bands": 0}, "bands=0"),
    ],
)
def test_what_is_not_offered_is_refused(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        make_scene(tmp_path, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1, 2.5, 17, 400])
def test_noise_has_mean_zero_and_deviation_about_one(scale: float) -> None:
    noise = smooth_noise(np.random.default_rng(0), 300, 310, scale)
    assert noise.shape == (300, 310)
    assert noise.dtype == np.float32
    if scale < 20:
        assert abs(noise.mean()) < 0.2
        assert 0.7 < noise.std() < 1.3
    step = np.abs(np.diff(noise, axis=0)).mean()
    assert step < 3 / scale


def test_roads_are_asphalt_or_gravel_and_no_object_stands_on_them(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, size=(400, 400), seed=1)
    with rasterio.open(scene.road_raster) as file:
        roads = file.read(1)
        assert file.nodata == 255
    with rasterio.open(scene.class_raster) as file:
        truth = file.read(1)
    assert set(np.unique(roads)) == {0, 1, 255}
    assert ((roads == 255) == (truth == 255)).all()
    assert not (truth[roads == 1] == 1).any()
    with rasterio.open(scene.raster) as file:
        red, _, blue = file.read().astype(float)
    grey = np.abs(red - blue)
    assert grey[roads == 1].mean() < 0.5 * grey[roads == 0].mean()


def test_dates_differ_by_new_buildings_and_the_light(tmp_path: Path) -> None:
    dates = make_dates(tmp_path / "a", size=(256, 256), seed=3)
    again = make_dates(tmp_path / "b", size=(256, 256), seed=3)
    read = []
    for path in (dates.before, dates.after, dates.change_raster, again.after):
        with rasterio.open(path) as file:
            read.append(file.read().astype(int))
    before, after, change, same = read
    assert (after == same).all()
    step = np.abs(after - before).mean(axis=0)
    assert 0.02 < (change[0] == 1).mean() < 0.3
    assert step[change[0] == 1].mean() > 3 * step[change[0] == 0].mean() > 0
    assert ((change[0] == 255) == (before == 0).all(axis=0)).all()
