"""Tools of class rasters: whole numbers of any dtype and nothing else, read block by block."""

import warnings
from functools import partial

import numpy as np
import pytest

from geodl.base.errors import DataError
from geodl.functions import (
    compute_confusion_matrix,
    extract_lines,
    polygonize,
    regularize_buildings,
)
from geodl.io.raster_file import RasterFile
from geodl.ops.skeleton import REACH_PER_STEP_PX
from geodl.tools import confusion_matrix
from geodl.tools import extract_lines as lines_module
from geodl.tools.class_values import class_values


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "float32", "float64"])
def test_whole_numbers_of_any_dtype_are_class_values(dtype):
    found = class_values(np.array([[0, 1], [1, 0]], dtype), "x")
    assert found.dtype == np.int32
    assert found.tolist() == [[0, 1], [1, 0]]


def test_what_has_no_data_does_not_matter_and_large_values_need_64_bits():
    values = np.array([3.0, np.nan, np.inf])
    assert class_values(values, "x", valid=np.array([True, False, False])).tolist() == [3, 0, 0]
    large = np.array([2.0**40])
    assert class_values(large, "x", bits=64).tolist() == [2**40]
    with pytest.raises(DataError, match="x holds values that are no whole numbers of 32 bits"):
        class_values(large, "x")
    with pytest.raises(DataError, match="the column holds"):
        class_values(np.array(["roof"], object), "the column", bits=64)


@pytest.mark.parametrize("value", [0.5, np.inf, 1e20])
@pytest.mark.parametrize(
    "tool",
    [polygonize, extract_lines, regularize_buildings, lambda r: compute_confusion_matrix(r, r)],
    ids=["polygonize", "extract_lines", "regularize_buildings", "compute_confusion_matrix"],
)
def test_tools_refuse_other_values_by_the_files_name_and_without_noise(tool, value, write_raster):
    values = np.ones((1, 40, 40), np.float32)
    values[0, 20, 20] = value
    path = write_raster(values, "chances.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"chances\.tif holds values that are no whole"):
            tool(path)


@pytest.mark.parametrize(
    "tool",
    [
        partial(polygonize, block_size=32),
        partial(extract_lines, block_size=32),
        partial(regularize_buildings, block_size=32),
        lambda r: compute_confusion_matrix(r, r),
    ],
    ids=["polygonize", "extract_lines", "regularize_buildings", "compute_confusion_matrix"],
)
def test_no_more_is_read_at_once_than_a_block_and_its_margin(tool, write_raster, monkeypatch):
    monkeypatch.setattr(confusion_matrix, "_WINDOW_PX", 32)
    monkeypatch.setattr(lines_module, "_STEPS", 8)
    values = np.zeros((1, 200, 240), np.uint8)
    values[0, 90:96] = values[0, 10:40, 100:180] = 1
    path = write_raster(values)
    read, sizes = RasterFile.read, []

    def seen(source, window, *more, **options):
        sizes.append((window.height, window.width))
        return read(source, window, *more, **options)

    monkeypatch.setattr(RasterFile, "read", seen)
    tool(path)
    assert sum(height * width for height, width in sizes) >= values.size
    # Thinning looks at what its layers can reach.
    margin = 2 * lines_module._STEPS * REACH_PER_STEP_PX if "extract_lines" in str(tool) else 0
    assert max(map(max, sizes)) <= 32 + margin < 200
