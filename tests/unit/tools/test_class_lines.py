"""classify_pixels with models of lines: features are centre lines, one graph for any blocks."""

import geopandas as gpd
import numpy as np
import pytest

from geodl.base.errors import OptionError
from geodl.cli import main as run_main
from geodl.functions import extract_lines
from geodl.testing.tiny import TinyPixels
from geodl.tools.classify_pixels import classify_pixels


@pytest.fixture(autouse=True)
def lines_not_areas(monkeypatch):
    monkeypatch.setattr(TinyPixels, "gives_lines", True, raising=False)


def scene():
    """uint8 (3, 150, 210): two bright roads that cross, and one that is less bright."""
    data = np.full((3, 150, 210), 20, np.uint8)
    data[:, 70:77] = data[:, :, 100:106] = 250
    data[:, 120:126, :60] = 120
    return data


def go(raster, model, path, **more):
    return classify_pixels(raster, str(model), {"predict_background": True}, path, progress=False,
                           **more)  # fmt: skip


@pytest.mark.parametrize("suffix", [".parquet", ".gpkg"])
def test_roads_come_as_lines_that_meet(write_raster, pixel_model, tmp_path, suffix):
    raster = write_raster(scene())
    path = tmp_path / f"roads{suffix}"
    found = go(raster, pixel_model, path)
    assert found.attrs["path"] == str(path)
    assert sorted(found["Class"]) == ["one", "two", "two", "two", "two"]
    assert found["ClassValue"].tolist() == [{"one": 1, "two": 2}[name] for name in found["Class"]]
    ends = found[found["Class"] == "two"][["FromNode", "ToNode"]].to_numpy().ravel().tolist()
    assert max(ends.count(node) for node in ends) == 4
    read = gpd.read_parquet if suffix == ".parquet" else gpd.read_file
    assert read(path).geometry.geom_equals_exact(found.geometry, 1e-6).all()
    assert found.total_bounds.tolist() == [500000.25, 4999925.25, 500104.75, 4999999.75]
    for side in (32, 64, 96, 128) if suffix == ".parquet" else ():
        again = go(raster, pixel_model, tmp_path / f"{side}{suffix}", block_size=side)
        assert again.equals(found)


def test_they_are_those_of_the_class_raster_in_an_extent_too(write_raster, pixel_model, tmp_path):
    raster = write_raster(scene())
    extent = {"xmin": 500020, "xmax": 500095, "ymin": 4999930, "ymax": 4999990}
    context = {"extent": extent}
    go(raster, pixel_model, tmp_path / "classes.tif", context=context)
    found = go(raster, pixel_model, tmp_path / "lines.parquet", context=context, block_size=64)
    expected = extract_lines(tmp_path / "classes.tif")
    assert found.drop(columns="Class").equals(expected)
    assert len(found) == 5


def test_what_lines_do_not_have_is_refused(write_raster, pixel_model, tmp_path):
    raster = write_raster(scene())
    with pytest.raises(OptionError, match="gives lines"):
        go(raster, pixel_model, tmp_path / "a.parquet", min_area=3)
    with pytest.raises(OptionError, match="leave out the scores"):
        classify_pixels(raster, str(pixel_model), {"output": "scores"}, tmp_path / "a.parquet")


def test_the_command_counts_them(write_raster, pixel_model, tmp_path, capsys):
    path = tmp_path / "roads.parquet"
    words = ["classify", str(write_raster(scene())), str(pixel_model), "--output-name", str(path)]
    assert run_main([*words, "--model-arguments", "predict_background=true"]) == 0
    assert capsys.readouterr().out == f"5 features: {path}\n"
