"""Training data that is no plain folder of chips is checked part by part, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geodl.cli.main import main
from geodl.formats import validate_export
from geodl.formats.layouts import LAYOUTS, file_of, layout_of
from geodl.testing.datasets import (
    band_statistics,
    change_folder,
    object_cloud_folder,
    point_cloud_folder,
    write_chip,
    write_chips,
    write_masks,
    write_root_files,
)

h5py = pytest.importorskip("h5py")


def pairs(root: Path) -> Path:
    write_chips(root / "images_before", 3, seed=1)
    write_chips(root / "images_after", 3, seed=2)
    write_masks(root / "labels", 3)
    return root


def triplets(root: Path) -> Path:
    write_chips(root / "train_A_C" / "images", 3, seed=1)
    write_chips(root / "train_A_C" / "images2", 3, seed=2, bands=1)
    write_chips(root / "train_B" / "images", 3, seed=3, bands=2)
    write_root_files(root / "train_A_C", "Export_Tiles")
    write_root_files(root / "train_B", "Export_Tiles", bands=2)
    return root


def captions(root: Path) -> Path:
    write_chips(root / "images", 3)
    sentences = [{"raw": "a field"}, {"raw": "two fields"}]
    entries = [{"filename": f"{n:09d}.tif", "sentences": sentences} for n in range(3)]
    (root / "annotations.json").write_text(json.dumps({"images": entries}))
    return root


def tracks(root: Path) -> Path:
    mask = np.zeros((1, 60, 60), np.uint8)
    mask[0, 5:45, 10:50] = 1
    frames = [f"{step:05d}" for step in range(2)]
    for video in ("v0", "v1"):
        for name in frames:
            write_chip(root / "JPEGImages" / video / f"{name}.tif", np.ones((3, 60, 60), np.uint8))
            write_chip(root / "Annotations" / video / f"{name}.tif", mask)
    videos = {video: {"objects": {"1": {"frames": frames}}} for video in ("v0", "v1")}
    (root / "meta.json").write_text(json.dumps({"videos": videos}))
    return root


def series(root: Path) -> Path:
    for number in range(2):
        write_chip(root / "images" / f"{number:09d}.tif", np.ones((6, 12, 12), np.uint8), number)
        mask = np.zeros((1, 12, 12), np.uint8)
        mask[0, :4] = 1
        write_chip(root / "labels" / "3" / f"{number:09d}.tif", mask, number)
    write_root_files(
        root, "RCNN_Masks", bands=6, size=(12, 12), IsMultidimensional=True,
        DimensionValues=[44000, 44010, 44020], Classes=[{"Value": 3, "Name": "3"}],
    )  # fmt: skip
    return root


def climate(root: Path) -> Path:
    for variable in ("t2m", "wind"):
        folder = root / variable / "StdTime"
        cubes = [np.random.default_rng(n).random((4, 6, 8)).astype(np.float32) for n in range(2)]
        for number, cube in enumerate(cubes):
            write_chip(folder / "images" / f"{number:09d}.tif", cube, number)
        write_root_files(
            folder, "Export_Tiles", bands=4, size=(6, 8), IsMultidimensional=True,
            DimensionValues=[40000, 40001, 40002, 40003], AllTilesStats=band_statistics(cubes),
        )  # fmt: skip
    return root


MADE: dict[str, Callable[[Path], Path]] = {
    "ChangeDetection": pairs,
    "WNet_cGAN": triplets,
    "ImageCaptioning": captions,
    "ObjectTracking": tracks,
    "PSETAE": series,
    "ClimaX": climate,
    "PointCloud": point_cloud_folder,
    "PointCloudOD": object_cloud_folder,
}


def faults_of(path: Path, given: str | None = None) -> list[str]:
    return [str(fault) for fault in validate_export(path, given)]


@pytest.mark.parametrize("name", sorted(MADE))
def test_sound_data_are_known_by_themselves_and_have_no_fault(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = MADE[name](tmp_path)
    assert layout_of(path) == name
    assert faults_of(path) == faults_of(path, name) == []
    assert main(["chips", "info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == name
    assert any(facts.get(key) for key in ("samples", "images", "chips", "tracks", "blocks"))


def chip(name: str, shape: tuple[int, int, int]) -> Callable[[Path], object]:
    return lambda path: write_chip(path / name, np.ones(shape, np.uint8))


def array(name: str, key: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    def edit(path: Path) -> None:
        with h5py.File(path / name, "r+") as file:
            values = np.asarray(file[key])
            del file[key]
            file[key] = change(values)

    return edit


def every_bit(masks: np.ndarray) -> np.ndarray:
    return np.full_like(masks, 255)


BROKEN: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("ChangeDetection", chip("images_after/000000001.tif", (4, 16, 16)),
     "images_after/000000001.tif", "has 4 bands"),
    ("ChangeDetection", chip("labels/000000002.tif", (1, 8, 16)),
     "labels/000000002.tif", "16 x 8 pixels"),
    ("ChangeDetection", lambda path: (path / "images_after/000000001.tif").unlink(),
     "images_after", "has no chip '000000001'"),
    ("WNet_cGAN", lambda path: (path / "train_B/images/000000002.tif").unlink(),
     "train_B/images", "has no chip '000000002'"),
    ("ImageCaptioning", lambda path: (path / "images/000000001.tif").write_bytes(b"II"),
     "images/000000001.tif", ""),
    ("ImageCaptioning", lambda path: (path / "annotations.json").write_text('{"images": []}'),
     "annotations.json", "no list 'images'"),
    ("ObjectTracking", chip("JPEGImages/v1/00001.tif", (3, 60, 50)),
     "JPEGImages/v1/00001.tif", "60 x 60 pixels and its frame"),
    ("PSETAE", chip("labels/3/000000001.tif", (1, 12, 9)),
     "labels/3/000000001.tif", "9 x 12 pixels"),
    ("ClimaX", chip("wind/StdTime/images/000000001.tif", (3, 6, 8)),
     "wind/StdTime/images/000000001.tif", "3"),
    ("PointCloud", array("train/ListTable.h5", "Masks", every_bit),
     "train/b.h5", "and it has none"),
    ("PointCloud", array("val/b.h5", "xyz", lambda xyz: xyz * 3), "val/b.h5", ""),
    ("PointCloud", lambda path: (path / "val/Statistics.json").unlink(),
     "val/Statistics.json", ""),
    ("PointCloudOD", array("train/a.h5", "orientedBoundingBox", lambda box: -box),
     "train/a.h5", "half length"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "file", "message"), BROKEN)
def test_a_fault_names_its_file(
    tmp_path: Path, name: str, spoil: Callable[[Path], object], file: str, message: str
) -> None:
    path = MADE[name](tmp_path)
    spoil(path)
    found = [fault for fault in validate_export(path, name) if fault.level == "error"]
    assert any(fault.file.startswith(file) and message in fault.message for fault in found), found


def test_all_broken_parts_are_listed(tmp_path: Path) -> None:
    path = pairs(tmp_path)
    for number in (0, 2):
        (path / "images_after" / f"{number:09d}.tif").write_bytes(b"no image")
    # The first one tells the size of all: without it nothing can be compared.
    assert len(faults_of(path)) == 1
    write_chip(path / "images_after" / "000000000.tif", np.ones((3, 16, 16), np.uint8))
    (path / "images_before" / "000000001.tif").write_bytes(b"no image")
    assert [text.split(":")[1].strip() for text in faults_of(path)] == [
        "images_before/000000001.tif", "images_after/000000002.tif",
    ]  # fmt: skip


def test_exports_with_a_second_raster_are_checked_as_chips_and_as_pairs(tmp_path: Path) -> None:
    path = change_folder(tmp_path)
    assert layout_of(path) is None
    assert [f for f in validate_export(path, "ChangeDetection") if f.level == "error"] == []
    write_chip(path / "images2" / "000000001.tif", np.ones((1, 16, 16), np.uint8))
    assert [(f.level, f.file) for f in validate_export(path)] == [
        ("warning", "images2/000000001.tif")
    ]
    assert ("error", "images2/000000001.tif") in [
        (f.level, f.file) for f in validate_export(path, "ChangeDetection")
    ]


def test_many_bands_need_their_statistics(tmp_path: Path) -> None:
    write_chips(tmp_path / "images", 2, bands=9)
    write_masks(tmp_path / "labels", 2)
    classes = [{"Value": 1, "Name": "mine"}]
    write_root_files(tmp_path, "Classified_Tiles", bands=9, Classes=classes)
    assert faults_of(tmp_path) == []
    (fault,) = validate_export(tmp_path, "3DRCNet")
    assert (fault.file, fault.where) == ("esri_model_definition.emd", "AllTilesStats")


def test_the_file_of_a_message_is_the_longest_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a b, c").mkdir()
    (tmp_path / "a b, c" / "d.tif").write_text("")
    inside = tmp_path / "a b, c" / "d.tif"
    assert file_of(f"{inside}: is broken", tmp_path) == inside
    assert file_of(f"{tmp_path / 'a b, c'} has no folder", tmp_path) == tmp_path / "a b, c"
    assert file_of(f"{tmp_path / 'gone.json'} is missing: no x", tmp_path) == tmp_path / "gone.json"
    assert file_of("No object is large", tmp_path) == tmp_path
    assert set(LAYOUTS) > set(MADE)
