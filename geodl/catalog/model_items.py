"""Models as STAC describes them: the machine learning model extension (MLM)."""

from __future__ import annotations

import re
from typing import Any

import pystac
from pystac.extensions.mlm import (
    InputStructure,
    MLMExtension,
    ModelInput,
    ModelOutput,
    ResultStructure,
    TaskType,
)
from pystac.extensions.raster import DataType

from geodl.bundle.read import Bundle
from geodl.core.contract import ModelContract

_TASKS = {
    "objects": TaskType.OBJECT_DETECTION,
    "boxes3d": TaskType.OBJECT_DETECTION,
    "pixels": TaskType.SEMANTIC_SEGMENTATION,
    "points": TaskType.SEGMENTATION,
    "instances": TaskType.INSTANCE_SEGMENTATION,
    "panoptic": TaskType.PANOPTIC_SEGMENTATION,
    "tiles": TaskType.CLASSIFICATION,
}


def describe_model(item: pystac.Item, asset: pystac.Asset, bundle: Bundle) -> None:
    """Give an item the facts of a package by the MLM extension."""
    contract = bundle.contract
    task = _TASKS.get(contract.kind, TaskType.GENERATIVE)
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=_name(item.id),
        architecture=contract.model_name,
        tasks=[task],
        input=[_input(contract)],
        output=[_output(contract, task)],
        framework="PyTorch",
        framework_version=_framework_version(bundle),
    )
    item.properties = _known(item.properties)
    asset.roles = ["mlm:model", "data"]
    asset.extra_fields["mlm:artifact_type"] = "geodl.package"


def _known(value: Any) -> Any:
    """The value without what is not known."""
    if isinstance(value, dict):
        return {k: _known(v) for k, v in value.items() if v is not None or k == "datetime"}
    return [_known(part) for part in value] if isinstance(value, list) else value


def _name(text: str) -> str:
    """A name of the characters that the extension allows, beginning with a letter."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]", "_", text).strip("_.-")
    return cleaned if re.match(r"^[A-Za-z].+[A-Za-z0-9]$", cleaned) else f"model_{cleaned or 0}"


def _framework_version(bundle: Bundle) -> str | None:
    own: Any = bundle.emd.get("Geodl")
    versions = own.get("versions") if isinstance(own, dict) else None
    text = str(versions.get("torch", "")) if isinstance(versions, dict) else ""
    found = re.match(r"\d+\.\d+\.\d+", text)
    return found.group() if found else None


def _input(contract: ModelContract) -> ModelInput:
    names = contract.band_names
    bands = [
        names[band] if band < len(names) and names[band] else f"band {band + 1}"
        for band in contract.extract_bands
    ]
    shape, order = [-1, contract.inputs, contract.tile_px, contract.tile_px], ["batch", "channel"]
    if contract.points is not None:
        shape, order = [-1, contract.inputs, -1], [*order, "point"]
    else:
        order = [*order, "height", "width"]
    structure = InputStructure.create(shape=shape, dim_order=order, data_type=DataType.FLOAT32)
    return ModelInput.create(
        name="imagery" if contract.points is None else "points", bands=bands, input=structure
    )


def _output(contract: ModelContract, task: TaskType) -> ModelOutput:
    classes = len(contract.classes)
    shape, order = [-1, classes], ["batch", "class"]
    if contract.kind == "pixels":
        shape = [-1, classes + 1, contract.tile_px, contract.tile_px]
        order = ["batch", "class", "height", "width"]
    result = ResultStructure.create(shape=shape, dim_order=order, data_type=DataType.FLOAT32)
    made = ModelOutput.create(name=contract.kind, tasks=[task], result=result)
    made.properties["classification:classes"] = [
        {"value": entry.value, "name": _name(entry.name), "title": entry.name}
        for entry in contract.classes
    ]
    return made
