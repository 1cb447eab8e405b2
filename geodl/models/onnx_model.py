"""A package whose network is an ONNX file, opened for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from geodl.bundle.onnx_definition import LAYOUT_KEY
from geodl.bundle.read import Bundle
from geodl.models.onnx_boxes import BoxNetwork
from geodl.models.onnx_network import LabelNetwork, PixelNetwork
from geodl.tasks.base import Task
from geodl.tasks.instances import InstanceTask
from geodl.tasks.labels import LabelTask
from geodl.tasks.objects import ObjectTask
from geodl.tasks.pixels import PixelTask


def open_network(bundle: Bundle) -> tuple[nn.Module, Task]:
    """The network of a package and the task that reads it.

    Raises
    ------
    BundleError
        onnxruntime cannot run it; names the file.
    MissingPackageError
        onnxruntime is not installed.
    """
    contract = bundle.contract
    layout: Mapping[str, Any] = bundle.parameters[LAYOUT_KEY]
    file, count = bundle.network_file(), len(contract.classes)
    if contract.kind == "pixels":
        return PixelNetwork(file, layout, count), PixelTask(contract.classes)
    if contract.kind == "tiles":
        several = layout.get("activation") == "sigmoid" or bool(bundle.parameters.get("multilabel"))
        return LabelNetwork(file, count, several), LabelTask(contract.classes, multilabel=several)
    net = BoxNetwork(file, layout, count)
    if contract.kind == "instances":
        return net, InstanceTask(contract.classes)
    return net, ObjectTask(contract.classes)
