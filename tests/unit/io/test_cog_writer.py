from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rio_cogeo import cog_validate

from geodl.base.errors import NotSupportedError, OutputError
from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import crs_text
from geodl.io.raster import open_raster
from geodl.io.regions import RegionStore
from geodl.io.source import open_source
from geodl.io.writers import cog, raster_writer, write_raster
from geodl.io.writers.zarr_store import flag_attributes

CLASSES = ClassTable.from_json(
    [
        {"Value": 2, "Name": "tree & bush", "Color": [0, 200, 0]},
        {"Value": 5, "Name": "water", "Color": [0, 0, 220]},
    ]
)


def filled(folder: Path, data: np.ndarray, fill: float, *, chunk: int = 256, crs=32633, **more):
    bands, rows, cols = data.shape
    transform = (0.5, 0, 500000, 0, -0.5, 5000000) if crs else (1, 0, 0, 0, 1, 0)
    grid = GeoGrid(
        width=cols, height=rows, transform=transform, crs=None if crs is None else crs_text(crs)
    )
    store = RegionStore.create(
        folder / "r.zarr", (bands, rows, cols), chunk, data.dtype, fill, grid, **more
    )
    for row in range(0, rows, chunk):
        height = min(chunk, rows - row)
        store.write(Window(row=row, col=0, height=height, width=cols), data[:, row : row + height])
    return store


@pytest.fixture
def labels() -> np.ndarray:
    data = np.random.default_rng(0).choice([0, 2, 5, 255], (1, 70, 90)).astype(np.uint8)
    return data.repeat(16, axis=1).repeat(16, axis=2)


def test_a_class_cog_is_valid_and_holds_pixels_colours_names_and_nodata(tmp_path, labels):
    target = tmp_path / "out" / "map.tif"
    assert write_raster(filled(tmp_path, labels, 255), target, classes=CLASSES) == target
    valid, errors, warnings = cog_validate(target, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(target) as dataset:
        np.testing.assert_array_equal(dataset.read(), labels)
        assert dataset.nodata == 255
        assert dataset.crs == CRS.from_epsg(32633)
        assert tuple(dataset.transform)[:6] == (0.5, 0, 500000, 0, -0.5, 5000000)
        assert dataset.colorinterp == (ColorInterp.palette,)
        assert dataset.colormap(1)[2] == (0, 200, 0, 255)
        assert dataset.colormap(1)[5] == (0, 0, 220, 255)
        assert dataset.overviews(1) == [2, 4]
        overview = dataset.read(1, out_shape=(280, 360))
        assert set(np.unique(overview)) == {0, 2, 5, 255}
        rasterio.shutil.copy(dataset, tmp_path / "seen.vrt", driver="VRT")
    # What GDAL itself makes of the names, through a copy that spells them out.
    seen = ElementTree.parse(tmp_path / "seen.vrt").getroot()
    names = [entry.text or "" for entry in seen.iter("Category")]
    assert names == ["background", "", "tree & bush", "", "", "water"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_the_product_opens_as_it_was_written(tmp_path, labels):
    target = write_raster(filled(tmp_path, labels, 255), tmp_path / "map.tif", classes=CLASSES)
    array = open_raster(target)
    np.testing.assert_array_equal(array.values, labels)
    np.testing.assert_array_equal(array.mask.values, labels[0] != 255)


def test_continuous_overviews_are_averages(tmp_path):
    ramp = np.arange(1200, dtype=np.float32)
    data = np.stack([np.tile(ramp, (600, 1)), np.tile(-ramp, (600, 1))])
    data[:, :100, :100] = np.nan
    store = filled(tmp_path, data, math.nan, band_names=("a", "b"))
    target = write_raster(store, tmp_path / "score.tif")
    assert cog_validate(target, strict=True)[0]
    with rasterio.open(target) as dataset:
        np.testing.assert_array_equal(dataset.read(), data)
        assert math.isnan(dataset.nodata)
        assert dataset.descriptions == ("a", "b")
        overview = dataset.read(1, out_shape=(300, 600))
        np.testing.assert_allclose(overview[-1], ramp.reshape(-1, 2).mean(axis=1), rtol=1e-6)
    assert not (tmp_path / "score.tif.aux.xml").exists()


@pytest.mark.parametrize("chunk", [256, 384, 512, 1000])
def test_any_chunk_size_gives_the_same_cog(tmp_path, labels, chunk):
    target = write_raster(filled(tmp_path, labels, 255, chunk=chunk), tmp_path / "map.tif")
    with rasterio.open(target) as dataset:
        np.testing.assert_array_equal(dataset.read(), labels)
        assert dataset.block_shapes[0] == (512, 512)


def test_large_class_values_have_an_attribute_table(tmp_path):
    classes = ClassTable.from_mapping({70000: "far", -3: "below"})
    data = np.full((1, 20, 20), 70000, np.int32)
    target = write_raster(
        filled(tmp_path, data, -2147483648), tmp_path / "map.tif", classes=classes
    )
    root = ElementTree.parse(f"{target}.aux.xml").getroot()
    rows = [[cell.text for cell in row][:2] for row in root.iter("Row")]
    assert rows == [["0", "background"], ["70000", "far"], ["-3", "below"]]
    assert list(root.iter("CategoryNames")) == []
    with rasterio.open(target) as dataset:
        assert dataset.nodata == -2147483648


def test_pixel_space_has_no_transform(tmp_path, labels):
    target = write_raster(filled(tmp_path, labels, 255, crs=None), tmp_path / "map.tif")
    with pytest.warns(UserWarning, match="pixel space"):
        source = open_source(target)
    np.testing.assert_array_equal(source.read(source.grid.window).data, labels)


def test_an_older_product_is_replaced_and_a_failed_one_leaves_it(tmp_path, labels, monkeypatch):
    target = tmp_path / "map.tif"
    store = filled(tmp_path, labels, 255)
    write_raster(store, target, classes=CLASSES)
    before = target.read_bytes()

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cog.rasterio.shutil, "copy", fail)
    with pytest.raises(OutputError, match=r"map\.tif.*disk is full.*kept"):
        write_raster(store, target, classes=CLASSES)
    assert target.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml", "r.zarr"]
    monkeypatch.undo()
    write_raster(store, target)
    assert len(list(tmp_path.glob("*.part"))) == 0


def test_a_file_that_came_out_short_is_noticed(tmp_path, labels, monkeypatch):
    original = rasterio.shutil.copy

    def short(source, target, **options):
        original(source, target, **options)
        with open(target, "r+b") as file:
            file.truncate(Path(target).stat().st_size - 200)

    monkeypatch.setattr(cog.rasterio.shutil, "copy", short)
    with pytest.raises(OutputError, match="incompletely"):
        write_raster(filled(tmp_path, labels, 255), tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


def test_a_zarr_product_is_the_store_itself_with_class_names(tmp_path, labels):
    store = filled(tmp_path, labels, 255)
    for _ in range(2):
        target = write_raster(store, tmp_path / "out" / "map.zarr", classes=CLASSES)
        assert not Path(store.path).exists()
        array = open_raster(target)
        np.testing.assert_array_equal(array.values, labels)
        assert array.rio.crs.to_epsg() == 32633
        store = filled(tmp_path, labels, 255)
    import xarray as xr

    attributes = xr.open_zarr(target, consolidated=False, chunks=None)["raster"].attrs
    assert attributes["flag_values"] == [0, 2, 5]
    assert attributes["flag_meanings"] == "background tree_&_bush water"
    assert attributes["flag_colors"].split()[1] == "#00c800"


def test_flags_have_one_word_per_class():
    flags = flag_attributes(CLASSES)
    assert len(flags["flag_meanings"].split()) == len(flags["flag_values"])


def test_a_suffix_without_a_writer_lists_those_with_one(tmp_path, labels):
    with pytest.raises(NotSupportedError, match=r"\.tif"):
        write_raster(filled(tmp_path, labels, 255), tmp_path / "map.png")
    with pytest.raises(NotSupportedError, match=r"\.tif"):
        raster_writer(".gpkg")
    assert raster_writer(".TIF").kind == "raster"


MEMORY = """
    import sys
    from geodl.runtime.memory import peak_bytes
    import numpy as np
    from geodl.core.grid import GeoGrid, Window
    from geodl.io.regions import RegionStore
    from geodl.io.writers import write_raster
    import geodl.io.writers.cog, geodl.io.writers.zarr_store

    side, folder = int(sys.argv[1]), sys.argv[2]
    grid = GeoGrid(width=side, height=side, transform=(1, 0, 0, 0, -1, 0), crs="EPSG:32633")
    store = RegionStore.create(f"{folder}/{side}.zarr", (1, side, side), 512, "uint8", 255, grid)
    band = np.random.default_rng(0).integers(0, 3, (1, 512, 128)).astype("uint8")
    band = np.tile(band, (1, 1, side // 128))
    for row in range(0, side, 512):
        store.write(Window(row=row, col=0, height=512, width=side), band)
    before = peak_bytes()
    write_raster(store, f"{folder}/{side}.tif")
    print((peak_bytes() - before) / 2**20)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path):
    grown = []
    for side in (6144, 16384):
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEMORY), str(side), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        grown.append(float(run.stdout))
    assert grown[1] < 250
    assert grown[1] < grown[0] + 80
