"""Samples in time: series of pixels (PSETAE) and fields with their future (ClimaX)."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest
import torch

from geodl.base.errors import DataError, FormatError, OptionError
from geodl.data.forecast import time_split
from geodl.data.prepare import prepare_data
from geodl.testing.datasets import band_statistics, write_chip, write_chips, write_root_files

DATES = ["2021-03-01", "2021-03-11", "2021-05-01"]
SERIES = {
    "dataset_type": "PSETAE", "n_temporal": 3, "n_temporal_dates": DATES, "batch_size": 2,
}  # fmt: skip


def series_folder(root, chips=5, steps=3, bands=2, side=12):
    """Pixel values tell class, date and band: 100 class + 10 date + band + noise in 0.1..0.9."""
    rng = np.random.default_rng(0)
    for i in range(chips):
        mask = np.zeros((side, side), np.uint8)
        mask[:, : side // 2], mask[: side // 3, side // 2 :] = 3, 7
        cube = np.stack(
            [100.0 * mask + 10 * t + c for t in range(steps) for c in range(bands)]
        ) + rng.uniform(0.1, 0.9, (steps * bands, side, side))
        write_chip(root / "images" / f"{i:09d}.tif", cube.astype(np.float32), i)
        for value in (3, 7):
            ids = (mask == value).astype(np.uint8)[None] * 2
            write_chip(root / "labels" / str(value) / f"{i:09d}.tif", ids, i)
    return root


def values_of(data, item):
    """Raw values (T, C, S)."""
    return data.normalization.invert(item["pixels"].numpy().transpose(1, 0, 2)).transpose(1, 0, 2)


def test_items_are_pixels_of_a_region_by_date_and_band(tmp_path):
    data = prepare_data(series_folder(tmp_path), {3: "maize"}, **SERIES)
    assert (data.kind, data.classes, data.days) == ("series", ["maize", "7"], (0, 10, 61))
    assert data.class_counts == {3: 5, 7: 5}
    for i in range(len(data.train_ds)):
        item = data.train_ds[i]
        assert item["pixels"].shape == (3, 2, 64)
        value = data.class_table.values[int(item["target"]) - 1]
        assert item["name"].endswith(f"/{value}")
        expected = 100 * value + 10 * np.arange(3)[:, None, None] + np.arange(2)[:, None]
        np.testing.assert_array_equal(np.floor(values_of(data, item)), expected + np.zeros(64))
        assert int(item["valid"].sum()) == {3: 64, 7: 24}[value]
        distinct = np.unique(item["pixels"][0, 0].numpy())
        assert len(distinct) == int(item["valid"].sum())
    assert "2021-03-01 to 2021-05-01" in repr(data)
    assert len(data.show_batch(1).axes) == 3


def test_training_draws_other_pixels_and_validation_the_same(tmp_path):
    data = prepare_data(series_folder(tmp_path), **SERIES)
    items = [data.train_ds[(0, seed)]["pixels"] for seed in (1, 1, 2)]
    torch.testing.assert_close(items[0], items[1])
    assert not torch.equal(items[0], items[2])
    torch.testing.assert_close(data.valid_ds[(0, 1)]["pixels"], data.valid_ds[(0, 2)]["pixels"])
    chips = [
        {items[i]["name"].split("/")[0] for i in range(len(items))}
        for items in (data.train_ds, data.valid_ds)
    ]
    assert chips[0].isdisjoint(chips[1])


def test_steps_and_channels_of_interest_are_chosen(tmp_path):
    data = prepare_data(
        series_folder(tmp_path), timesteps_of_interest=[0, 2], channels_of_interest=[1],
        min_points=128, **SERIES,
    )  # fmt: skip
    item = data.train_ds[0]
    assert item["pixels"].shape == (2, 1, 128)
    assert item["days"].tolist() == [0, 61]
    found = np.floor(values_of(data, item)[:, 0, 0] % 100)
    assert found.tolist() == [1, 21]


def test_dates_can_come_from_the_export(tmp_path):
    root = series_folder(tmp_path)
    write_root_files(
        root, "RCNN_Masks", IsMultidimensional=True, DimensionValues=[36526, 36536, 36600],
        Classes=[{"Value": 3, "Name": "wheat"}],
    )  # fmt: skip
    data = prepare_data(root, batch_size=2)
    assert data.dates[0] == datetime.date(2000, 1, 1)
    assert data.days == (0, 10, 74)
    assert data.classes == ["wheat", "7"]


def test_statistics_of_the_export_are_merged_over_dates(tmp_path):
    cubes = write_chips(tmp_path / "images", 3, bands=6, dtype="float32", size=(8, 8))
    for i in range(3):
        write_chip(tmp_path / "labels" / "1" / f"{i:09d}.tif", np.ones((1, 8, 8), np.uint8), i)
    write_root_files(tmp_path, "RCNN_Masks", bands=6, AllTilesStats=band_statistics(cubes))
    data = prepare_data(tmp_path, **SERIES)
    everything = np.stack(cubes).reshape(3, 3, 2, 64)
    expected = everything[:, :, 1]
    assert data.normalization.minimum[1] == expected.min()
    span = expected.max() - expected.min()
    assert data.normalization.scaled_std[1] * span == pytest.approx(expected.std())


def test_a_single_chip_is_split_by_regions(tmp_path):
    data = prepare_data(series_folder(tmp_path, chips=1), **SERIES)
    assert len(data.train_ds) == len(data.valid_ds) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_temporal": 2}, "n_temporal=2"),
        ({"n_temporal_dates": None}, "does not say its dates"),
        ({"n_temporal_dates": "2021-03-01"}, "no list"),
        ({"n_temporal_dates": ["2021-03-01", "x", "y"]}, "'x' is no date"),
        ({"min_points": 100}, "multiple"),
        ({"timesteps_of_interest": [3]}, "0..2"),
        ({"timesteps_of_interest": [1, 0]}, "ascend"),
        ({"channels_of_interest": []}, "no list"),
        ({"transforms": len}, "takes no transforms"),
    ],
)
def test_options_of_series_outside_their_domain_are_refused(tmp_path, options, words):
    with pytest.raises(OptionError, match=words):
        prepare_data(series_folder(tmp_path, chips=2), **SERIES | options)


def test_faults_of_series_are_named(tmp_path):
    root = series_folder(tmp_path, chips=2)
    with pytest.raises(FormatError, match="6 bands, which 4 dates"):
        prepare_data(root, **SERIES | {"n_temporal": 4, "n_temporal_dates": [*DATES, "2022-01-01"]})
    with pytest.raises(FormatError, match="must ascend"):
        prepare_data(root, **SERIES | {"n_temporal_dates": DATES[::-1]})
    write_chip(root / "labels" / "3" / "000000001.tif", np.zeros((1, 12, 12), np.uint8))
    with pytest.raises(FormatError, match=r"000000001\.tif masks no pixel"):
        prepare_data(root, **SERIES)
    write_chip(root / "labels" / "3" / "000000001.tif", np.ones((1, 6, 12), np.uint8))
    with pytest.raises(FormatError, match="12 x 6 pixels"):
        prepare_data(root, **SERIES)
    (root / "labels" / "3" / "000000001.tif").rename(root / "labels" / "3" / "9.tif")
    with pytest.raises(FormatError, match="no image '9'"):
        prepare_data(root, **SERIES)
    (root / "labels" / "empty").mkdir()
    (root / "labels" / "3" / "9.tif").unlink()
    with pytest.raises(FormatError, match="whole number"):
        prepare_data(root, **SERIES)
    (root / "labels" / "empty").rename(root / "labels" / "5")
    with pytest.raises(FormatError, match="holds no file"):
        prepare_data(root, **SERIES)


def test_real_series_separate_forest_from_fields(tmp_path, sample_data):
    source = sample_data / "eopatch_slovenia"
    ndvi = np.load(source / "NDVI.npy")[::4, :96, :96, 0]
    cover = np.load(source / "LULC.npy")[:96, :96, 0]
    stamps = json.loads((source / "timestamps.json").read_text())[::4]
    for i in range(4):
        row, col = divmod(i, 2)
        part = (slice(row * 48, row * 48 + 48), slice(col * 48, col * 48 + 48))
        write_chip(tmp_path / "images" / f"{i:09d}.tif", ndvi[:, part[0], part[1]], i)
        for value in (1, 2, 3):
            mask = (cover[part] == value).astype(np.uint8)
            if mask.any():
                write_chip(tmp_path / "labels" / str(value) / f"{i:09d}.tif", mask[None], i)
    data = prepare_data(
        tmp_path, dataset_type="PSETAE", n_temporal=len(stamps),
        n_temporal_dates=[stamp[:10] for stamp in stamps], batch_size=4,
    )  # fmt: skip
    batch = next(iter(data.train_loader()))
    assert batch["pixels"].shape == (4, len(stamps), 1, 64)
    assert torch.isfinite(batch["pixels"]).all()


# -- fields -----------------------------------------------------------------------------------


def climate_folder(root, variables=("t2m", "wind"), chips=2, steps=12, stats=True):
    """Values tell variable and step: 100 variable + step + noise in 0.1..0.5."""
    for number, name in enumerate(variables):
        folder, cubes = root / name / "StdTime", []
        rng = np.random.default_rng(number)
        for i in range(chips):
            cube = (
                100.0 * number
                + np.arange(steps)[:, None, None]
                + rng.uniform(0.1, 0.5, (steps, 6, 8))
            )
            cubes.append(cube.astype(np.float32))
            write_chip(folder / "images" / f"{i:09d}.tif", cubes[-1], i)
        more = {"AllTilesStats": band_statistics(cubes)} if stats else {}
        write_root_files(
            folder, "Export_Tiles", bands=steps, IsMultidimensional=True,
            DimensionValues=[40000 + step for step in range(steps)], **more,
        )  # fmt: skip
    return root


@pytest.mark.parametrize("stats", [True, False])
def test_fields_come_with_those_some_steps_later(tmp_path, stats):
    data = prepare_data(
        climate_folder(tmp_path, stats=stats), forecast_timesteps=2, hrs_each_step=6, batch_size=2
    )
    assert (data.dataset_type, data.variables) == ("ClimaX", ("t2m", "wind"))
    assert len(data.dates) == 12
    for i in range(len(data.train_ds)):
        item = data.train_ds[i]
        step = int(item["name"].split("/")[1])
        for key, ahead in (("image", 0), ("target", 2)):
            raw = data.normalization.invert(item[key].numpy())
            expected = np.array([0, 100])[:, None, None] + step + ahead + np.zeros((6, 8))
            np.testing.assert_array_equal(np.floor(raw), expected)
        assert float(item["lead_time"]) == pytest.approx(0.12)
        assert item["valid"].all()
    chip = int(data.train_ds[0]["name"].split("/")[0])
    top = 2000 - 0.25 - (chip // 4) * 3
    np.testing.assert_allclose(data.train_ds[0]["latitude"], top - 0.5 * np.arange(6))
    assert "12 hours" in repr(data)
    assert len(data.show_batch(1).axes) == 3
    batch = next(iter(data.train_loader()))
    assert batch["image"].shape == (2, 2, 6, 8)


@pytest.mark.parametrize(("steps", "ahead", "share"), [(12, 2, 0.2), (6, 1, 0.1), (40, 5, 0.5)])
def test_training_never_sees_the_time_that_validates(steps, ahead, share):
    train, valid = time_split(steps, ahead, share)
    assert train[-1] + ahead < valid[0]
    assert valid[-1] + ahead == steps - 1
    assert train[0] == 0


def test_too_few_steps_are_told(tmp_path):
    with pytest.raises(DataError, match="too few"):
        prepare_data(climate_folder(tmp_path, steps=4), forecast_timesteps=3)


def test_pixels_without_data_are_known(tmp_path):
    root = climate_folder(tmp_path, variables=("sst",), chips=1, stats=False)
    cube = np.full((12, 6, 8), 7, np.float32)
    cube[:, 0, :], cube[3, 1, 1] = np.nan, np.nan
    write_chip(root / "sst" / "StdTime" / "images" / "000000000.tif", cube)
    data = prepare_data(root, batch_size=2)
    item = data.train_ds[2]
    assert not item["valid"][0, 0].any()
    assert not item["valid"][0, 1, 1]
    assert item["valid"].sum() == 39
    assert torch.isfinite(item["image"]).all()


def test_faults_of_climate_folders_are_named(tmp_path):
    root = climate_folder(tmp_path / "a")
    (root / "wind" / "StdTime" / "images" / "000000001.tif").unlink()
    with pytest.raises(FormatError, match="no chip '000000001'"):
        prepare_data(root)
    root = climate_folder(tmp_path / "b")
    emd = root / "wind" / "StdTime" / "esri_model_definition.emd"
    value = json.loads(emd.read_text())
    for change, words in (
        ({"DimensionValues": value["DimensionValues"][:-1]}, "11 time steps"),
        ({"DimensionValues": [v + 1 for v in value["DimensionValues"]]}, "dates differ"),
        ({"DimensionValues": ["x"] * 12}, "days as numbers"),
        ({"DimensionValues": value["DimensionValues"][::-1]}, "must ascend"),
        ({"DimensionValues": None}, "DimensionValues"),
        ({"AllTilesStats": value["AllTilesStats"][:3]}, "3 entries for 12"),
    ):
        emd.write_text(json.dumps(value | change))
        with pytest.raises(FormatError, match=words):
            prepare_data(root, dataset_type="ClimaX")
    (tmp_path / "c").mkdir()
    with pytest.raises(FormatError, match="<variable>/<dimension>"):
        prepare_data(tmp_path / "c", dataset_type="ClimaX")
