"""Chip images hold exactly what was written, with their place; broken ones are named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio

from geodl.base.errors import FormatError, OptionError
from geodl.core.grid import GeoGrid
from geodl.formats.images import (
    SUFFIXES,
    check_holds,
    image_files,
    open_image,
    place,
    read_image,
    world_file,
    write_image,
)

UTM = pyproj.CRS.from_epsg(32633).to_wkt()
GRID = GeoGrid(width=31, height=17, transform=(0.1, 0.0, 432100.3, 0.0, -0.1, 4567900.7), crs=UTM)


def pixels(bands: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(bands)
    info = np.iinfo(dtype) if np.dtype(dtype).kind != "f" else None
    if info is None:
        return rng.normal(0, 1e4, (bands, 17, 31)).astype(dtype)
    return rng.integers(info.min, info.max, (bands, 17, 31), dtype=dtype, endpoint=True)


LOSSLESS = [
    (chip_format, bands, dtype)
    for chip_format in ("TIFF", "MRF", "PNG")
    for bands in (1, 2, 3, 4, 13)
    for dtype in ("uint8", "uint16", "int16", "float32")
    if chip_format != "PNG" or (bands <= 4 and dtype in ("uint8", "uint16"))
]


@pytest.mark.parametrize(("chip_format", "bands", "dtype"), LOSSLESS)
def test_values_dtype_and_place_come_back(
    tmp_path: Path, chip_format: str, bands: int, dtype: str
) -> None:
    check_holds(chip_format, bands, dtype)
    path = tmp_path / f"000000007{SUFFIXES[chip_format]}"
    data = pixels(bands, dtype)
    write_image(path, data, chip_format=chip_format, grid=GRID)
    chip = read_image(path)
    assert chip.data.dtype == dtype
    assert np.array_equal(chip.data, data)
    assert chip.mask.all()
    with open_image(path) as dataset:
        assert np.allclose(dataset.transform, GRID.affine, atol=1e-9, rtol=0)
        assert dataset.crs.to_epsg() == 32633


def test_jpeg_keeps_its_place_and_nearly_its_values(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rows, cols = np.mgrid[:17, :31]
    data = np.stack([rows * 9, cols * 7, rows + cols]).astype(np.uint8)
    write_image(path, data, chip_format="JPEG", grid=GRID, nodata=0)
    chip = read_image(path)
    assert np.abs(chip.data.astype(int) - data).mean() < 4
    assert chip.mask.all()
    with open_image(path) as dataset:
        assert dataset.crs.to_epsg() == 32633


@pytest.mark.parametrize(
    ("chip_format", "bands", "dtype"),
    [
        ("PNG", 5, "uint8"),
        ("PNG", 3, "int16"),
        ("PNG", 1, "float32"),
        ("JPEG", 3, "uint16"),
        ("JPEG", 2, "uint8"),
        ("JPEG", 4, "uint8"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_naming_tiff(
    chip_format: str, bands: int, dtype: str
) -> None:
    with pytest.raises(OptionError, match=rf"{bands} bands of {dtype}.*TIFF"):
        check_holds(chip_format, bands, dtype)


def test_tiff_refuses_complex_numbers_without_naming_itself_as_the_remedy() -> None:
    with pytest.raises(OptionError, match="Convert the raster"):
        check_holds("TIFF", 1, "complex64")


@pytest.mark.parametrize("chip_format", ["TIFF", "PNG", "MRF"])
def test_nodata_is_the_mask_where_all_bands_have_it(tmp_path: Path, chip_format: str) -> None:
    data = np.full((4, 17, 31), 9, np.uint8)
    data[:, 3, 4] = 7
    data[1:, 5, 6] = 7
    path = tmp_path / f"a{SUFFIXES[chip_format]}"
    write_image(path, data, chip_format=chip_format, grid=GRID, nodata=7)
    mask = read_image(path).mask
    assert not mask[3, 4]
    assert mask[5, 6]
    assert mask.sum() == mask.size - 1


def test_nan_counts_per_band(tmp_path: Path) -> None:
    data = np.ones((2, 17, 31), np.float32)
    data[:, 0, 0] = np.nan
    data[1, 0, 1] = np.nan
    data[0, 0, 2], data[1, 0, 2] = np.nan, -9999
    write_image(tmp_path / "a.tif", data, chip_format="TIFF", grid=GRID, nodata=-9999)
    assert np.flatnonzero(~read_image(tmp_path / "a.tif").mask).tolist() == [0, 2]


def test_a_fourth_band_is_data_not_alpha(tmp_path: Path) -> None:
    data = pixels(4, "uint8")
    data[3] = 0
    for chip_format in ("TIFF", "PNG"):
        path = tmp_path / f"a{SUFFIXES[chip_format]}"
        write_image(path, data, chip_format=chip_format, grid=GRID)
        chip = read_image(path)
        assert np.array_equal(chip.data, data)
        assert chip.mask.all()


def test_a_mask_without_nodata_is_kept_in_a_tiff(tmp_path: Path) -> None:
    mask = np.ones((17, 31), bool)
    mask[:5, :9] = False
    write_image(tmp_path / "a.tif", pixels(3, "uint8"), chip_format="TIFF", grid=GRID, mask=mask)
    assert np.array_equal(read_image(tmp_path / "a.tif").mask, mask)
    assert sorted(os.listdir(tmp_path)) == ["a.tfw", "a.tif"]


def test_world_files_hold_the_centre_of_the_first_pixel_with_ten_decimals() -> None:
    grid = GeoGrid(width=4, height=4, transform=(0.5, 0, 432100.0, 0, -0.5, 4567900.0), crs=UTM)
    assert world_file(grid).split("\n") == [
        "0.5000000000",
        "0.0000000000",
        "0.0000000000",
        "-0.5000000000",
        "432100.2500000000",
        "4567899.7500000000",
        "",
    ]


def test_small_cells_keep_their_digits() -> None:
    cell = 2.6999123456789e-06
    grid = GeoGrid(width=4, height=4, transform=(cell, 0, -115.3, 0, -cell, 36.1), crs=None)
    assert float(world_file(grid).split("\n")[0]) == cell


@pytest.mark.parametrize("chip_format", list(SUFFIXES))
def test_side_files_are_known_by_name(tmp_path: Path, chip_format: str) -> None:
    path = tmp_path / f"a{SUFFIXES[chip_format]}"
    write_image(path, pixels(1, "uint8"), chip_format=chip_format, grid=GRID)
    assert {entry.name for entry in tmp_path.iterdir()} <= {p.name for p in image_files(path)}


def test_identical_chips_have_identical_bytes(tmp_path: Path) -> None:
    for chip_format, suffix in SUFFIXES.items():
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            write_image(
                tmp_path / name / f"c{suffix}", pixels(3, "uint8"), chip_format=chip_format,
                grid=GRID,
            )  # fmt: skip
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        place(tmp_path / "a.bin", b"abc")
    assert not list(tmp_path.iterdir())


def test_missing_and_broken_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"gone\.tif is missing"):
        read_image(tmp_path / "gone.tif")
    path = tmp_path / "torn.tif"
    write_image(path, pixels(3, "uint8"), chip_format="TIFF", grid=GRID)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(FormatError, match=r"torn\.tif cannot be read"):
        read_image(path)
    path.write_text("not an image")
    with pytest.raises(FormatError, match=r"torn\.tif cannot be read"):
        read_image(path)


def test_images_without_a_place_are_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    path.write_bytes(_bare_png())
    assert read_image(path).data.shape == (1, 2, 3)
    assert pickle.loads(pickle.dumps(read_image(path))).mask.all()


def _bare_png() -> bytes:
    from geodl.formats.images import encode

    grid = GeoGrid(width=3, height=2, transform=(1, 0, 0, 0, 1, 0), crs=None)
    return encode(np.ones((1, 2, 3), np.uint8), "PNG", grid)


def test_a_mask_band_inside_a_foreign_tiff_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", width=3, height=2, count=1, dtype="uint8", crs="EPSG:32633",
            transform=GRID.affine,
        ) as dataset,
    ):  # fmt: skip
        dataset.write(np.ones((1, 2, 3), np.uint8))
        dataset.write_mask(np.array([[1, 1, 0], [1, 0, 1]], bool))
    assert read_image(path).mask.tolist() == [[True, True, False], [True, False, True]]
