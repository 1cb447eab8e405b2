"""From chip folders to batches: dataset types, splits, augmentation, normalisation, drawing.

Importing this package loads no torch; the attributes below do, when they are first used.
"""

from __future__ import annotations

from geodl.base.registry import Registry, lazy_attributes

# Dataset type to its builder (`geodl.data.builder.ChipBuilder` or anything with the same two
# members, ``keywords`` and ``build``). A further type is one module and one row here.
DATASETS = Registry(
    "dataset type",
    {
        "PASCAL_VOC_rectangles": "geodl.data.objects:PascalVocRectangles",
        "KITTI_rectangles": "geodl.data.objects:PascalVocRectangles",
        "COCO_rectangles": "geodl.data.objects:PascalVocRectangles",
        "YOLO_rectangles": "geodl.data.objects:PascalVocRectangles",
        "Classified_Tiles": "geodl.data.pixels:ClassifiedTiles",
        "RCNN_Masks": "geodl.data.instances:InstanceMasks",
        "COCO_instances": "geodl.data.instances:InstanceMasks",
        "Labeled_Tiles": "geodl.data.tiles:LabeledTiles",
        "Imagenet": "geodl.data.tiles:LabeledTiles",
        "MultiLabeled_Tiles": "geodl.data.tiles:MultiLabeledTiles",
        "Panoptic_Segmentation": "geodl.data.panoptic:PanopticSegmentation",
        "ChangeDetection": "geodl.data.change:ChangeDetection",
        "Pix2Pix": "geodl.data.translation:Pix2Pix",
        "WNet_cGAN": "geodl.data.translation:WNetCGan",
        "CycleGAN": "geodl.data.translation:CycleGan",
        "superres": "geodl.data.superres:SuperResolution",
        "Export_Tiles": "geodl.data.superres:SuperResolution",
        "PointCloud": "geodl.data.points:PointCloud",
        "PointCloudOD": "geodl.data.point_objects:PointCloudOD",
        "PSETAE": "geodl.data.series:Psetae",
        "ClimaX": "geodl.data.forecast:ClimaX",
        "ImageCaptioning": "geodl.data.captioning:ImageCaptioning",
        "ObjectTracking": "geodl.data.tracking:ObjectTracking",
        "3DRCNet": "geodl.data.pixels:ClassifiedTiles",
        "SR3": "geodl.data.superres:SuperResolution",
    },
    group="geodl.datasets",
)

__getattr__ = lazy_attributes(
    __name__,
    {
        "ChipData": "geodl.data.chips:ChipData",
        "Transform3d": "geodl.data.transform3d:Transform3d",
        "estimate_batch_size": "geodl.data.batch_size:estimate_batch_size",
        "prepare_data": "geodl.data.prepare:prepare_data",
    },
)
