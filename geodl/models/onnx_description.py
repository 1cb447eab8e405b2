"""What an ONNX file that geodl writes says of itself, so that it is a model without its package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from geodl.base.packages import require
from geodl.bundle.onnx_definition import OWN_KEY
from geodl.bundle.schema import SCHEMA_VERSION, definition, own_keys

if TYPE_CHECKING:
    from geodl.models.base import TorchModel


def described(content: bytes, model: TorchModel, facts: Mapping[str, Any]) -> bytes:
    """The ONNX network with metadata: the model's definition, and keys for other programs.

    Parameters
    ----------
    facts
        What the QGIS plugin Deepness reads of this kind of model, by key; its keys of every kind
        are added.
    """
    onnx = require("onnx", "export")
    loaded = onnx.load_from_string(content)
    contract = model.contract
    emd = {
        **definition(contract, model.parameters),
        **model.emd_keys(model.parameters),
        "Geodl": {
            "schema": SCHEMA_VERSION,
            "version": version("geodl"),
            **own_keys(contract),
        },
    }
    every: dict[str, Any] = {
        OWN_KEY: emd,
        "tile_size": contract.tile_px,
        "tiles_size": contract.tile_px,
        "bands": [band + 1 for band in contract.extract_bands],
        **facts,
    }
    if contract.cell_size is not None:
        # In centimetres, as that plugin counts.
        every["resolution"] = 100 * sum(contract.cell_size) / 2
    for key, value in every.items():
        entry = loaded.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value, allow_nan=False)
    return bytes(loaded.SerializeToString())
