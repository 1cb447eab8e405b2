"""Every registered chip format holds the rules of all formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from geodl.formats import FORMATS
from geodl.testing.product_conformance import check_format

# Formats whose labels are neither the boxes nor the class mask of a whole chip that check_format
# compares. Their labels are compared in tests/unit/formats/test_round_trip.py, for every format.
OTHER_LABELS = {
    "COCO_instances": "a mask per object",
    "CycleGAN": "two folders without labels",
    "Export_Tiles": "no labels",
    "Imagenet": "a class per object, each in a chip of its own",
    "Labeled_Tiles": "a class per object, each in a chip of its own",
    "MultiLabeled_Tiles": "the classes of a chip, without their place",
    "Panoptic_Segmentation": "a class mask with a mask per object",
    "RCNN_Masks": "a mask per object",
}
COMPARED = sorted(set(FORMATS) - set(OTHER_LABELS))


def test_exceptions_are_formats() -> None:
    assert set(OTHER_LABELS) < set(FORMATS)
    assert len(COMPARED) >= 5


@pytest.mark.parametrize("name", COMPARED)
def test_format_conforms(name: str, tmp_path: Path) -> None:
    check_format(name, tmp_path)


@pytest.mark.parametrize("name", COMPARED)
def test_format_keeps_the_values_of_any_raster(name: str, tmp_path: Path) -> None:
    check_format(name, tmp_path, bands=5, dtype="float32")
