"""Arguments of a model as ArcGIS Pro shows them, with the defaults that the tools have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from geodl.base.models import MODELS
from geodl.core.contract import ModelContract
from geodl.infer.augment import Policy
from geodl.infer.options import known_arguments, tile_options

# What needs more of the raster than a block, or a product that Pro does not make.
_NOT_HERE = ("overlap", "output", "precision")
_TEXTS = {
    "padding": ("Padding", "Pixels on each side of a tile that are seen but not kept."),
    "batch_size": ("Batch Size", "Tiles at once; the largest square of them is taken."),
    "tile_size": ("Tile Size", "Side of the tiles in pixels."),
    "test_time_augmentation": (
        "Test Time Augmentation", "Merge the results of the turned and mirrored tile."
    ),
    "tta_scales": ("Scales", "Sizes of the tile that are merged too, with commas between."),
    "threshold": ("Threshold", "Least score, 0 to 1."),
    "nms_overlap": ("Overlap", "Largest overlap of two objects of a class that are both kept."),
    "exclude_pad_detections": ("Exclude Cut Objects", "Drop objects that a tile's edge cuts."),
    "predict_background": ("Predict Background", "Whether pixels may be of no class."),
    "merge_policy": ("Merge Policy", "How results of turned tiles are merged."),
    "thinning": ("Thinning", "Keep the centre lines alone."),
    "return_probability_raster": ("Probability Raster", "Give scores instead of classes."),
    "return_bboxes": ("Bounding Boxes", "Give the bounds of the outlines."),
    "rotated_bboxes": ("Turned Boxes", "Give the smallest turned rectangles."),
    "explainability_map": ("Explainability Map", "Add a picture of what spoke for the label."),
    "trust_code": ("Trust Code", "Run the Python source in the package: read it first."),
}  # fmt: skip
# Attributes of the options of a run, where they are called otherwise.
_ATTRIBUTES = {"test_time_augmentation": "augment", "merge_policy": "policy"}
_DOMAINS: Mapping[str, tuple[str, ...]] = {"merge_policy": get_args(Policy)}


def argument(name: str, value: Any) -> dict[str, Any]:
    """One argument with its default, as ``getParameterInfo()`` describes it."""
    title, text = _TEXTS.get(name, (name.replace("_", " ").title(), f"{name} of the model."))
    kind = "numeric" if isinstance(value, int | float) else "string"
    found = {
        "name": name,
        "dataType": "boolean" if isinstance(value, bool) else kind,
        "value": value,
        "required": False,
        "displayName": title,
        "description": text,
    }
    return {**found, "domain": _DOMAINS[name]} if name in _DOMAINS else found


def tile_arguments(contract: ModelContract, device: str) -> list[dict[str, Any]]:
    """The arguments of a model that runs over tiles; ``tile_size`` where it may be chosen."""
    names = [name for name in known_arguments(contract) if name not in _NOT_HERE]
    if not contract.variable_tile:
        names.remove("tile_size")
    return [argument(name, _default(name, contract, device)) for name in names]


def _default(name: str, contract: ModelContract, device: str) -> Any:
    options = tile_options(contract, None)
    sizes = {
        "padding": options.padding_px,
        "tile_size": options.tile_px,
        "batch_size": options.batch_for(contract.kind, device, 2**30),
        "tta_scales": "1",
    }
    if name in sizes:
        return sizes[name]
    own = getattr(MODELS.get(contract.model_name), "raster_arguments", None) or {}
    return own.get(name, getattr(options.run, _ATTRIBUTES.get(name, name), False))
