"""The public model classes by name; the one place where a class is found from a package's name."""

from __future__ import annotations

from geodl.base.registry import Registry

# Of geodl itself; geodl.learn has them under these names.
MODEL_CLASSES = {
    "SingleShotDetector": "geodl.models.single_shot_detector:SingleShotDetector",
    "DETReg": "geodl.models.detreg:DETReg",
    "RTDetrV2": "geodl.models.rt_detr_v2:RTDetrV2",
    "DFine": "geodl.models.d_fine:DFine",
    "FasterRCNN": "geodl.models.faster_rcnn:FasterRCNN",
    "RetinaNet": "geodl.models.retina_net:RetinaNet",
    "ModelExtension": "geodl.models.model_extension:ModelExtension",
    "FeatureClassifier": "geodl.models.feature_classifier:FeatureClassifier",
    "MaskRCNN": "geodl.models.mask_rcnn:MaskRCNN",
    "YOLOv3": "geodl.models.yolov3:YOLOv3",
    "EfficientDet": "geodl.models.efficient_det:EfficientDet",
    "UnetClassifier": "geodl.models.unet_classifier:UnetClassifier",
    "ChangeDetector": "geodl.models.change_detector:ChangeDetector",
    "MultiTaskRoadExtractor": "geodl.models.multi_task_road_extractor:MultiTaskRoadExtractor",
    "ConnectNet": "geodl.models.connect_net:ConnectNet",
    "HEDEdgeDetector": "geodl.models.hed_edge_detector:HEDEdgeDetector",
    "BDCNEdgeDetector": "geodl.models.bdcn_edge_detector:BDCNEdgeDetector",
    "PSPNetClassifier": "geodl.models.pspnet_classifier:PSPNetClassifier",
    "DeepLab": "geodl.models.deeplab:DeepLab",
    "PointCNN": "geodl.models.point_cnn:PointCNN",
    "MMDetection3D": "geodl.models.mm_detection_3d:MMDetection3D",
    "RandLANet": "geodl.models.randla_net:RandLANet",
    "SQNSeg": "geodl.models.sqn_seg:SQNSeg",
}

MODELS = Registry("model", MODEL_CLASSES, group="geodl.models")
