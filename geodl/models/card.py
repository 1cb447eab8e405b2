"""What a package says of its model to people: the model card, and how it was trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodl.models.base import TorchModel

CARD_NAME = "MODEL_CARD.md"
SETTINGS_NAME = "training.json"
_METRICS = ("accuracy", "mIoU", "average_precision_score", "score")
# Facts of a data object; those that it has.
_DATA_FACTS = (
    "dataset_type", "batch_size", "seed", "split", "chip_size", "dtype", "band_names",
    "statistics_name", "image_space",
)  # fmt: skip


def training_settings(model: TorchModel) -> dict[str, Any]:
    """JSON of data, parameters and epochs; no path of the machine it was trained on."""
    data = model.data
    facts: dict[str, Any] = {}
    if data is not None:
        facts = {key: getattr(data, key) for key in _DATA_FACTS if hasattr(data, key)}
        facts["train_chips"], facts["valid_chips"] = len(data.train_ds), len(data.valid_ds)
    return {
        "geodl": version("geodl"),
        "torch": version("torch"),
        "data": _plain(facts),
        "parameters": _plain(model.parameters),
        **_plain(model.record.to_json()),
    }


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """A JSON file of plain values."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """The value with JSON types only; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def model_card(name: str, emd: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Markdown: what the model is, takes and gives, how it was trained, and how to use it."""
    data, epochs = settings["data"], settings["epochs"]
    size, cells = emd.get("ImageHeight"), _cells(emd)
    lines = [
        f"# {name}",
        "",
        f"`{emd['ModelName']}` ({emd['ModelType']}), made by geodl {settings['geodl']}.",
        "",
        "## Input",
        "",
        f"- Bands: {_bands(emd)}",
        *([f"- Tiles of {size} x {size} pixels{cells}"] if size else []),
        "",
        "## Classes",
        "",
        *(f"- {entry['Value']}: {entry['Name']}" for entry in emd.get("Classes", [])),
        "",
        "## Training",
        "",
        *_training(data, epochs),
        "",
        "## Scores on the validation set",
        "",
        *([f"- {key}: {emd[key]}" for key in _METRICS if key in emd] or ["Not computed."]),
        "",
        "Scores hold for data like the validation set's. Check the model on ground that you know "
        "before you trust it elsewhere.",
        "",
        "## Use",
        "",
        "```python",
        f"from geodl.learn import {emd['ModelName']}",
        f'model = {emd["ModelName"]}.from_model("{name}.dlpk")',
        "```",
        "",
    ]
    return "\n".join(lines)


def _bands(emd: Mapping[str, Any]) -> str:
    names, chosen = list(emd.get("Bands") or []), list(emd.get("ExtractBands") or [])
    shown = [str(names[band]) if band < len(names) else f"{band + 1}" for band in chosen]
    return ", ".join(shown) or "none"


def _cells(emd: Mapping[str, Any]) -> str:
    low, high = emd.get("MinCellSize"), emd.get("MaxCellSize")
    if not low or not high:
        return ""
    return f", cells of {low['x']:g} to {high['x']:g} m"


def _training(data: Mapping[str, Any], epochs: list[Mapping[str, Any]]) -> list[str]:
    lines = []
    if data:
        lines.append(
            f"- {data.get('train_chips')} samples of {data.get('dataset_type')} to train, "
            f"{data.get('valid_chips')} to validate ({data.get('split', 'random')} split, seed "
            f"{data.get('seed')})"
        )
    if epochs:
        lines.append(
            f"- {len(epochs)} epochs; losses at the end: {epochs[-1].get('train_loss')} training, "
            f"{epochs[-1].get('valid_loss')} validation"
        )
    return lines or ["Not trained."]
