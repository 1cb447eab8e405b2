"""The documented API under one import: a table of names, each imported when it is first used."""

from __future__ import annotations

from geodl.base.models import MODEL_CLASSES
from geodl.base.registry import lazy_attributes

_PUBLIC = {
    "export_training_data": "geodl.tools.export_training_data:export_training_data",
    "prepare_data": "geodl.data.prepare:prepare_data",
    "estimate_batch_size": "geodl.data.batch_size:estimate_batch_size",
    "Transform3d": "geodl.data.transform3d:Transform3d",
    "export_point_dataset": "geodl.tools.export_point_dataset:export_point_dataset",
    **MODEL_CLASSES,
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
