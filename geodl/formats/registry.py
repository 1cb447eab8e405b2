"""The chip formats by the name of their metadata; a new one is a file and a row here."""

from __future__ import annotations

from geodl.base.registry import Registry

FORMATS = Registry(
    "chip format",
    {
        "KITTI_rectangles": "geodl.formats.kitti:Kitti",
        "PASCAL_VOC_rectangles": "geodl.formats.pascal_voc:PascalVoc",
        "Classified_Tiles": "geodl.formats.classified_tiles:ClassifiedTiles",
        "RCNN_Masks": "geodl.formats.rcnn_masks:RcnnMasks",
        "Labeled_Tiles": "geodl.formats.labeled_tiles:LabeledTiles",
        "MultiLabeled_Tiles": "geodl.formats.labeled_tiles:MultiLabeledTiles",
        "Export_Tiles": "geodl.formats.export_tiles:ExportTiles",
        "CycleGAN": "geodl.formats.export_tiles:CycleGan",
        "Imagenet": "geodl.formats.imagenet:Imagenet",
        "Panoptic_Segmentation": "geodl.formats.panoptic:Panoptic",
        "COCO_rectangles": "geodl.formats.coco:CocoRectangles",
        "COCO_instances": "geodl.formats.coco:CocoInstances",
        "YOLO_rectangles": "geodl.formats.yolo:Yolo",
    },
    group="geodl.formats",
)
