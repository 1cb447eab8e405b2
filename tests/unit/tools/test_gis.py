"""What ``gis=`` means: products without a folder go into the catalog, and all are published."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pytest

import geodl
from geodl.base.errors import OptionError, OutputExistsError
from geodl.learn import classify_pixels, detect_objects
from geodl.testing.tiny import tiny_model


@pytest.fixture
def catalog(tmp_path):
    return geodl.Catalog(tmp_path / "catalog")


def test_a_bare_name_lies_in_the_catalog(scene, catalog, tmp_path):
    model = tiny_model(tmp_path / "pixels", "pixels")
    arguments = {"tile_size": 32, "padding": 8}
    found = classify_pixels(
        str(scene.raster), str(model), arguments, "cover", gis=catalog, progress=False
    )
    item = catalog.get("cover")
    assert found.attrs["path"] == item.assets["data"].href
    assert Path(found.attrs["path"]) == catalog.root / "cover" / "cover.tif"
    assert item.properties["geodl:kind"] == "raster"
    assert item.properties["geodl:facts"]["model"] == "TinyPixels"
    assert {"thumbnail", "cover.tif.manifest.json"} < set(item.assets)
    assert catalog.validate() == 1
    with pytest.raises(OutputExistsError):
        classify_pixels(str(scene.raster), str(model), arguments, "cover", gis=catalog)
    again = classify_pixels(
        str(scene.raster), str(model), arguments, "cover", gis=catalog, overwrite=True,
        progress=False,
    )  # fmt: skip
    assert again.attrs["path"] == found.attrs["path"]
    assert len(catalog) == 1


def test_without_a_name_the_product_is_published_under_its_own(scene, catalog, tmp_path):
    model = tiny_model(tmp_path / "objects", "objects")
    found = detect_objects(str(scene.raster), str(model), gis=catalog, progress=False)
    (item,) = catalog.search(kind="features")
    assert found.attrs["path"] == item.assets["data"].href
    assert len(geopandas.read_parquet(item.assets["data"].href)) == len(found)


def test_a_path_is_kept_and_published_as_a_copy(scene, catalog, tmp_path):
    model = tiny_model(tmp_path / "objects", "objects")
    out = tmp_path / "own.gpkg"
    found = detect_objects(str(scene.raster), str(model), None, out, gis=catalog, progress=False)
    assert found.attrs["path"] == str(out)
    assert Path(catalog.get("own").assets["data"].href).parent == catalog.root / "own"


def test_what_is_no_catalog_is_refused(scene, tmp_path):
    model = tiny_model(tmp_path / "objects", "objects")
    with pytest.raises(OptionError, match=r"geodl\.Catalog"):
        detect_objects(str(scene.raster), str(model), gis="my portal")
