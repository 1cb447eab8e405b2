"""The chip formats by the name of their metadata; a new one is a file and a row here."""

from __future__ import annotations

from geodl.base.registry import Registry

FORMATS = Registry(
    "chip format",
    {
        "KITTI_rectangles": "geodl.formats.kitti:Kitti",
        "PASCAL_VOC_rectangles": "geodl.formats.pascal_voc:PascalVoc",
        "Classified_Tiles": "geodl.formats.classified_tiles:ClassifiedTiles",
    },
    group="geodl.formats",
)
