"""The documented API under one import: a table of names, each imported when it is first used."""

from __future__ import annotations

from geodl.base.registry import lazy_attributes

_PUBLIC = {
    "export_training_data": "geodl.tools.export_training_data:export_training_data",
    "prepare_data": "geodl.data.prepare:prepare_data",
    "estimate_batch_size": "geodl.data.batch_size:estimate_batch_size",
    "Transform3d": "geodl.data.transform3d:Transform3d",
    "export_point_dataset": "geodl.tools.export_point_dataset:export_point_dataset",
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
    "detect_objects": "geodl.tools.detect_objects:detect_objects",
    "detect_change_using_deep_learning": (
        "geodl.tools.detect_change:detect_change_using_deep_learning"
    ),
    "Embeddings": "geodl.tools.embeddings:Embeddings",
    "Model": "geodl.tools.model_package:Model",
    "list_models": "geodl.tools.model_package:list_models",
    "train_model": "geodl.tools.train_model:train_model",
    "classify_objects": "geodl.tools.classify_objects:classify_objects",
    "classify_pixels": "geodl.tools.classify_pixels:classify_pixels",
    "compute_accuracy_for_object_detection": (
        "geodl.tools.object_accuracy:compute_accuracy_for_object_detection"
    ),
}

__all__ = sorted(_PUBLIC)
__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
