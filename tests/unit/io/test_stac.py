from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from geodl.base.errors import GridMismatchError, OptionError, SourceError
from geodl.io.raster import open_raster
from geodl.io.source import open_source
from geodl.io.stac import is_stac_item, stac_assets


def item(folder, **assets: dict):
    return {
        "type": "Feature",
        "id": "S2-1",
        "assets": assets,
        "links": [{"rel": "self", "href": f"{folder}/item.json"}],
    }


def tiff(href: str, **more):
    return {"href": href, "type": "image/tiff; application=geotiff", **more}


def test_the_only_raster_of_an_item_is_read(make_tif, noise, tmp_path):
    make_tif(noise(2, 5, 5))
    scene = item(
        tmp_path,
        data=tiff("./a.tif"),
        preview=tiff("p.tif", roles=["thumbnail"]),
        info={"href": "x.xml", "type": "application/xml"},
    )
    assert is_stac_item(scene)
    np.testing.assert_array_equal(open_raster(scene).values, noise(2, 5, 5))


def test_what_a_search_gives_is_the_mosaic_of_its_items(make_tif, noise, tmp_path):
    data = noise(2, 5, 10)
    for n in (0, 5):
        make_tif(data[:, :, n : n + 5], f"{n}.tif", origin=(500000.0 + 10 * n, 5000000.0))
    scenes = [item(tmp_path, data=tiff(f"{n}.tif")) for n in (0, 5)]
    found = {"type": "FeatureCollection", "features": scenes}
    np.testing.assert_array_equal(open_raster(found).values, data)
    np.testing.assert_array_equal(open_raster(SimpleNamespace(items=scenes)).values, data)
    with pytest.raises(OptionError, match="cannot be opened from dict"):
        open_source({"type": "FeatureCollection", "features": []})


def test_assets_become_bands_by_name(make_tif, noise, tmp_path):
    for seed, name in enumerate(("red", "nir")):
        make_tif(noise(5, 5, seed=seed), f"{name}.tif", nodata=0)
    scene = item(tmp_path, red=tiff("red.tif"), nir=tiff("nir.tif"))
    with pytest.raises(SourceError, match=r"S2-1.*variable=...\): red, nir"):
        open_source(scene)
    with pytest.raises(OptionError, match=r"no asset 'nri'.*'nir'"):
        open_source(scene, variable="nri")
    source = open_source(scene, variable=["nir", "red"])
    assert source.band_names == ("nir", "red")
    block = source.read(source.grid.window)
    np.testing.assert_array_equal(block.data, [noise(5, 5, seed=1), noise(5, 5, seed=0)])
    red = open_source(source, bands="red")
    np.testing.assert_array_equal(red.read(red.grid.window).data[0], noise(5, 5))
    assert source.identity()["kind"] == "stack"


def test_objects_with_assets_are_items(make_tif, noise, tmp_path):
    path = make_tif(noise(5, 5))

    class Item:
        assets = {}

        def to_dict(self, transform_hrefs=True):
            return item("https://host/place", data=tiff(str(path)))

    assert is_stac_item(Item())
    assert open_source(Item()).count == 1
    assert open_source([Item(), path]).count == 1


def test_places_are_told_from_the_items_own():
    scene = item("https://host/place", data=tiff("../b/a.tif"))
    assert stac_assets(scene, ()) == [("data", "https://host/b/a.tif")]
    with pytest.raises(SourceError, match="no raster"):
        stac_assets(item("x"), ())


def test_variables_become_bands(noise):
    coords = {"y": -np.arange(4.0), "x": np.arange(5.0)}
    dataset = xr.Dataset(
        {name: (("y", "x"), noise(4, 5, seed=n)) for n, name in enumerate(("r", "g", "b"))}, coords
    ).rio.write_crs(32633)
    source = open_source(dataset, variable=["b", "r"])
    assert source.band_names == ("b", "r")
    np.testing.assert_array_equal(
        source.read(source.grid.window).data, [noise(4, 5, seed=2), noise(4, 5, seed=0)]
    )


def test_bands_on_other_grids_are_not_stacked(make_tif, noise, tmp_path):
    make_tif(noise(5, 5), "a.tif")
    make_tif(noise(9, 9), "b.tif")
    scene = item(tmp_path, a=tiff("a.tif"), b=tiff("b.tif"))
    with pytest.raises(GridMismatchError, match=r"b\.tif"):
        open_source(scene, variable=["a", "b"])
