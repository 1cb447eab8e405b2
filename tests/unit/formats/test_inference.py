"""Which dataset type a folder holds."""

from __future__ import annotations

import json

import pytest

from geodl.base.errors import DataWarning, FormatError, SourceNotFoundError
from geodl.formats.inference import infer_dataset_type
from geodl.testing.datasets import (
    object_cloud_folder,
    point_cloud_folder,
    write_root_files,
)


@pytest.mark.parametrize("mode", ["PASCAL_VOC_rectangles", "Imagenet", "Panoptic_Segmentation"])
def test_an_export_says_itself_what_it_is(tmp_path, mode):
    write_root_files(tmp_path, mode)
    assert infer_dataset_type(tmp_path) == mode


@pytest.mark.parametrize("given", ["PASCAL_VOC_rectangles", "PointCloud", "WNet_cGAN"])
def test_an_export_goes_before_what_the_caller_says(tmp_path, given):
    write_root_files(tmp_path, "Classified_Tiles")
    with pytest.warns(DataWarning, match=f"'{given}' is not used: .* it is Classified_Tiles"):
        assert infer_dataset_type(tmp_path, given) == "Classified_Tiles"


@pytest.mark.parametrize(
    "given", ["superres", "CycleGAN", "Pix2Pix", "ChangeDetection", "ObjectTracking", "PSETAE"]
)
def test_another_use_of_the_same_files_is_the_callers_to_say(tmp_path, given):
    write_root_files(tmp_path, "RCNN_Masks")
    assert infer_dataset_type(tmp_path, given) == given


@pytest.mark.parametrize("given", ["PointCloud", "KITTI_rectangles"])
def test_a_plain_folder_is_what_the_caller_says(tmp_path, given):
    assert infer_dataset_type(tmp_path, given) == given


def test_the_other_spelling_of_labeled_tiles_is_taken(tmp_path):
    assert infer_dataset_type(tmp_path, "Labelled_Tiles") == "Labeled_Tiles"


def test_masks_of_a_multidimensional_raster_are_time_series(tmp_path):
    write_root_files(tmp_path, "RCNN_Masks", IsMultidimensional=True)
    assert infer_dataset_type(tmp_path) == "PSETAE"


@pytest.mark.parametrize(
    ("write", "expected"),
    [(point_cloud_folder, "PointCloud"), (object_cloud_folder, "PointCloudOD")],
)
def test_exports_of_points_are_known_by_their_files(tmp_path, write, expected):
    pytest.importorskip("h5py")
    folder = write(tmp_path / "town")
    assert infer_dataset_type(folder) == infer_dataset_type(folder / "train") == expected


def test_a_folder_of_clouds_is_told_from_an_export_of_them(tmp_path):
    (tmp_path / "a.LAZ").touch()
    with pytest.raises(FormatError, match="export_point_dataset"):
        infer_dataset_type(tmp_path)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [(("A", "B"), "CycleGAN"), (("train_A_C", "train_B"), "WNet_cGAN")],
)
def test_two_exports_side_by_side_are_known_by_their_names(tmp_path, parts, expected):
    for part in parts:
        write_root_files(tmp_path / part, "Export_Tiles")
    assert infer_dataset_type(tmp_path) == expected


@pytest.mark.parametrize(
    ("mode", "multidimensional", "expected"),
    [
        ("Export_Tiles", True, "ClimaX"),
        ("Export_Tiles", False, "PSETAE"),
        ("RCNN_Masks", True, "PSETAE"),
    ],
)
def test_exports_two_folders_down_are_climate_or_time_series(
    tmp_path, mode, multidimensional, expected
):
    write_root_files(tmp_path / "t2m" / "StdTime", mode, IsMultidimensional=multidimensional)
    (tmp_path / "DATA" / "train").mkdir(parents=True)
    assert infer_dataset_type(tmp_path) == expected


@pytest.mark.parametrize("given", [None, "Export_Tiles"])
def test_tiles_with_a_second_raster_are_pairs(tmp_path, given):
    write_root_files(tmp_path, "Export_Tiles")
    (tmp_path / "images2").mkdir()
    assert infer_dataset_type(tmp_path, given) == "Pix2Pix"


def test_tiles_with_labels_are_pairs_unless_another_reader_made_them(tmp_path):
    write_root_files(tmp_path, "Export_Tiles")
    (tmp_path / "labels").mkdir()
    assert infer_dataset_type(tmp_path) == "Pix2Pix"
    (tmp_path / "esri_superres_labels_downsample_factor.txt").write_text("4")
    assert infer_dataset_type(tmp_path) == "superres"


def test_tiles_alone_are_for_super_resolution(tmp_path):
    write_root_files(tmp_path, "Export_Tiles")
    assert infer_dataset_type(tmp_path) == "superres"


def test_classified_tiles_with_a_second_raster_are_change(tmp_path):
    write_root_files(tmp_path, "Classified_Tiles")
    (tmp_path / "images2").mkdir()
    assert infer_dataset_type(tmp_path) == "ChangeDetection"


@pytest.mark.parametrize(
    ("field", "expected"), [("Caption", "ImageCaptioning"), ("Name", "MultiLabeled_Tiles")]
)
def test_a_caption_field_makes_labels_captions(tmp_path, field, expected):
    write_root_files(tmp_path, "MultiLabeled_Tiles", SingleLabelFieldFound=field)
    assert infer_dataset_type(tmp_path) == expected


def test_a_folder_that_says_nothing_needs_a_type(tmp_path):
    with pytest.raises(FormatError, match="dataset_type"):
        infer_dataset_type(tmp_path)


def test_no_folder_and_a_file_are_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        infer_dataset_type(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="is a file"):
        infer_dataset_type(tmp_path / "file")


def test_broken_metadata_is_named(tmp_path):
    (tmp_path / "esri_model_definition.emd").write_text(json.dumps([1]))
    with pytest.raises(FormatError, match="esri_model_definition"):
        infer_dataset_type(tmp_path)
