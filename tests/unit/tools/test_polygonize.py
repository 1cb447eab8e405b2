"""polygonize: the same for any blocks, exact to the pixel, corners and holes as they should."""

import numpy as np
import pytest
import rasterio
import shapely
from rasterio import features
from rasterio.transform import from_origin
from scipy import ndimage

from geodl.base.errors import DataError, OptionError
from geodl.functions import polygonize

TRANSFORM = from_origin(5e5, 5e6, 0.5, 0.5)


def write(path, values, nodata=255):
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1,
        dtype=values.dtype, crs="EPSG:32633", transform=TRANSFORM, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(values, 1)
    return path


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(rng.random((60, 75)), 1.2)
    classes = np.digitize(smooth, np.quantile(smooth, [0.3, 0.6])).astype(np.uint8)
    classes[rng.random(classes.shape) < 0.05] = 2
    classes[20:24, 30:50] = 255
    return classes


@pytest.fixture(scope="module")
def raster(values, tmp_path_factory):
    return write(tmp_path_factory.mktemp("polygonize") / "c.tif", values)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_any_blocks_give_the_polygons_of_the_whole(raster, connectivity):
    whole = polygonize(raster, connectivity=connectivity)
    for side in (1000, 32, 16, 7):
        again = polygonize(raster, connectivity=connectivity, block_size=side)
        assert again["ClassValue"].tolist() == whole["ClassValue"].tolist()
        assert shapely.equals_exact(again.geometry.values, whole.geometry.values, 0).all()


@pytest.mark.parametrize("connectivity", [4, 8])
def test_polygons_are_the_connected_regions_and_burn_back(raster, values, connectivity):
    found = polygonize(raster, connectivity=connectivity, block_size=16)
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    counts = {v: ndimage.label(values == v, structure)[1] for v in (0, 1, 2)}
    assert found["ClassValue"].value_counts().to_dict() == counts
    assert found.is_valid.all()
    burnt = features.rasterize(
        zip(found.geometry, found["ClassValue"], strict=True),
        values.shape, fill=255, transform=TRANSFORM, dtype="uint8",
    )  # fmt: skip
    assert np.array_equal(burnt, values)
    assert found.crs.to_epsg() == 32633


def test_corners_holes_and_straight_edges(tmp_path):
    values = np.zeros((8, 8), np.uint8)
    values[1:6, 1:6] = 1
    values[3, 3] = 0
    values[6, 6] = 1
    found = polygonize(write(tmp_path / "r.tif", values), block_size=4)
    (ring,) = found.loc[found["ClassValue"] == 1, "geometry"]
    assert ring.geom_type == "MultiPolygon"
    big, small = sorted(ring.geoms, key=lambda part: -part.area)
    assert (big.area, small.area) == (24 * 0.25, 0.25)
    assert [len(part.exterior.coords) for part in (big, small)] == [5, 5]
    assert len(big.interiors) == 1
    assert found["ClassValue"].tolist() == [0, 0, 1]


def test_holes_that_meet_at_a_corner_stay_valid(tmp_path):
    values = np.ones((6, 6), np.uint8)
    values[2, 2] = values[3, 3] = 0
    path = write(tmp_path / "h.tif", values)
    whole = polygonize(path, connectivity=4)
    assert whole.is_valid.all()
    assert whole["ClassValue"].tolist() == [0, 0, 1]
    again = polygonize(path, connectivity=4, block_size=3)
    assert shapely.equals_exact(again.geometry.values, whole.geometry.values, 0).all()


def test_simplified_borders_stay_shared(raster):
    plain = polygonize(raster)
    found = polygonize(raster, simplify=1.5, block_size=16)
    assert found["ClassValue"].tolist() == plain["ClassValue"].tolist()
    assert found.count_coordinates().sum() < 0.8 * plain.count_coordinates().sum()
    assert found.is_valid.all()
    assert shapely.coverage_is_valid(found.geometry.values)
    again = polygonize(raster, simplify=1.5, block_size=1000)
    assert shapely.equals_exact(again.geometry.values, found.geometry.values, 0).all()


def test_small_regions_are_left_out_by_ground_area(raster):
    plain = polygonize(raster)
    found = polygonize(raster, min_area=1.0, block_size=16)
    kept = plain[plain.area >= 1.0]
    assert 0 < len(found) < len(plain)
    assert found.area.tolist() == kept.area.tolist()
    with pytest.raises(OptionError, match="min_area"):
        polygonize(raster, min_area=-1)
    with pytest.raises(OptionError, match="more than the whole raster"):
        polygonize(raster, simplify=1e6)


def test_what_is_no_class_raster_is_refused(tmp_path):
    path = write(tmp_path / "f.tif", np.full((4, 4), 0.5, np.float32))
    with pytest.raises(DataError, match="whole numbers"):
        polygonize(path)
    with pytest.raises(OptionError, match="connectivity"):
        polygonize(path, connectivity=6)
    empty = polygonize(write(tmp_path / "e.tif", np.full((4, 4), 255, np.uint8)))
    assert len(empty) == 0
