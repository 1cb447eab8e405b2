"""What apply_model makes of an xarray object lines up with that object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import geodl
from geodl.base.errors import DataWarning, ModelDataError
from geodl.testing.tiny import tiny_change_model, tiny_model
from geodl.tools.classify_pixels import classify_pixels

ROWS, COLS = 60, 70
# Steps that no binary number holds: coordinates computed in another way differ in the last digit.
NORTH_TO_SOUTH = 5e6 - np.arange(ROWS) / 3
WEST_TO_EAST = 5e5 + np.arange(COLS) / 3


def picture() -> np.ndarray:
    """uint8 (3, ROWS, COLS), brighter from left to right."""
    return np.broadcast_to(np.linspace(1, 255, COLS).astype(np.uint8), (3, ROWS, COLS)).copy()


def array(y: Any, x: Any, names: tuple[str, str] = ("y", "x"), crs: int | None = 32633) -> Any:
    made = xr.DataArray(
        picture(), dims=("band", *names), coords={names[0]: y, names[1]: x, "day": 7}
    )
    if crs is None:
        return made
    return made.rio.set_spatial_dims(names[1], names[0]).rio.write_crs(crs)


@pytest.mark.parametrize(
    "given",
    [
        array(NORTH_TO_SOUTH, WEST_TO_EAST),
        array(NORTH_TO_SOUTH[::-1], WEST_TO_EAST),
        array(NORTH_TO_SOUTH, WEST_TO_EAST[::-1]),
        array(NORTH_TO_SOUTH, WEST_TO_EAST, ("northing", "easting")),
        array(np.linspace(45, 44, ROWS), np.linspace(10, 11, COLS), ("lat", "lon"), 4326),
        array(np.linspace(45, 44, ROWS, dtype="f4"), np.linspace(10, 11, COLS, dtype="f4")),
        array(NORTH_TO_SOUTH, WEST_TO_EAST).transpose("x", "band", "y"),
    ],
    ids=["thirds", "south first", "east first", "names", "degrees", "float32", "turned"],
)
def test_the_answer_lines_up_with_the_array(
    given: xr.DataArray, pixel_model: Path, tmp_path: Path
) -> None:
    answer = geodl.apply_model(given, str(pixel_model), block_size=32)
    y, x = ("y", "x") if "y" in given.dims else given.dims[1:]
    assert answer.dims == ("band", y, x)
    xr.align(given, answer.isel(band=0, drop=True), join="exact")
    assert int(answer["day"]) == 7
    kept = given.where(answer.isel(band=0, drop=True) == 2, 0)
    # The brightest columns are those of the second class.
    dark = given.where(answer.isel(band=0, drop=True) == 1, 255)
    assert int(kept.where(kept > 0, 255).min()) >= int(dark.where(dark < 255, 0).max()) - 8
    product = classify_pixels(given, str(pixel_model), None, tmp_path / "map.tif", progress=False)
    southwards = answer.isel({y: slice(None, None, -1)}) if answer[y][0] < answer[y][-1] else answer
    np.testing.assert_array_equal(southwards.values, product.values)
    assert answer.rio.crs == given.rio.crs
    np.testing.assert_allclose(answer.rio.bounds(), product.rio.bounds())


def test_without_a_crs_the_answer_lines_up_too(pixel_model: Path) -> None:
    given = array(np.arange(ROWS) * 0.1, np.arange(COLS) * 0.1, crs=None)
    with pytest.warns(DataWarning, match="states no CRS"):
        answer = geodl.apply_model(given, str(pixel_model))
    xr.align(given, answer.isel(band=0, drop=True), join="exact")


def test_slices_of_a_series_become_a_series(pixel_model: Path) -> None:
    given = xr.concat(
        [array(NORTH_TO_SOUTH, WEST_TO_EAST).assign_coords(day=day) for day in (1, 2)], "day"
    )
    answers = [
        geodl.apply_model(given.isel(day=k).to_dataset(name="seen"), str(pixel_model))
        for k in range(2)
    ]
    np.testing.assert_array_equal(xr.concat(answers, "day")["day"], [1, 2])


def test_an_answer_on_other_cells_keeps_its_own_axes(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "coarse", "pixels", pixel_scale=0.5)
    answer = geodl.apply_model(array(NORTH_TO_SOUTH, WEST_TO_EAST, ("lat", "lon")), str(model))
    assert answer.dims == ("band", "y", "x")
    assert answer.shape == (1, ROWS // 2, COLS // 2)


def test_a_model_that_compares_takes_both_images_as_one_stack(tmp_path: Path) -> None:
    model = tiny_change_model(tmp_path / "change")
    before = array(NORTH_TO_SOUTH, WEST_TO_EAST)
    with pytest.raises(ModelDataError, match=r"xarray\.concat\(\[before, after\]"):
        geodl.apply_model(before, str(model))
    after = before.copy(data=np.where(before > 100, 255, before).astype(np.uint8))
    answer = geodl.apply_model(xr.concat([before, after], "band"), str(model))
    # Change is a growth by more than a quarter of 255.
    grown = (after.astype(float) - before).isel(band=0) > 0.25 * 255
    assert int(grown.sum()) > 0
    assert int((answer.isel(band=0) == 1).where(~grown, False).sum()) <= ROWS
    assert int((answer.isel(band=0) == 0).where(grown, False).sum()) <= ROWS
