"""RT-DETR v2 as its authors have trained it on COCO, in the names of our network.

Its backbone is the ResNet-50 with a deep stem and averaging shortcuts that timm has as resnet50d.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import huggingface_hub.constants
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from geodl.base.packages import require

RT_DETR = "PekingU/rtdetr_v2_r50vd"
RT_DETR_BACKBONE = "timm:resnet50d"

_BODY = "detr.model.backbone.body.body."
FIRST_FILTERS = f"{_BODY}conv1.0.weight"
_FIRST_MEAN = f"{_BODY}conv1.1.running_mean"
# Layers with an output or an input for each of COCO's classes.
OF_CLASSES = (".class_embed.", ".enc_score_head.", ".denoising_class_embed.")
# What follows the names of transformers' backbone, and timm's name for it: convolution, then norm.
_STEM = {"0": ("conv1.0", "conv1.1"), "1": ("conv1.3", "conv1.4"), "2": ("conv1.6", "bn1")}
_STEM_PLACE = re.compile(r"embedder\.embedder\.(\d)\.(convolution|normalization)\.(\w+)")
_BLOCK_PLACE = re.compile(
    r"encoder\.stages\.(\d)\.layers\.(\d)\.(layer\.(\d)|shortcut(?:\.1)?)"
    r"\.(convolution|normalization)\.(\w+)"
)


def rt_detr_state() -> dict[str, Tensor]:
    """All weights by our names, for images with the mean and deviation of ImageNet's.

    Raises
    ------
    OSError
        They cannot be had.
    """
    constants = huggingface_hub.constants
    package = require("transformers", "transformers")
    # transformers looks up where weights lie only once, when it is imported.
    net = package.RTDetrV2ForObjectDetection.from_pretrained(
        RT_DETR, cache_dir=constants.HF_HUB_CACHE, local_files_only=constants.HF_HUB_OFFLINE
    )
    return for_normalized(renamed(net.state_dict()))


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of transformers' network by the names of ours."""
    return {_renamed(key): value for key, value in state.items()}


def _renamed(key: str) -> str:
    _, inside, place = key.partition("model.backbone.model.")
    if not inside:
        return f"detr.{key}"
    if stem := _STEM_PLACE.fullmatch(place):
        which, kind, what = stem.groups()
        return f"{_BODY}{_STEM[which][kind == 'normalization']}.{what}"
    block = _BLOCK_PLACE.fullmatch(place)
    if block is None:
        return f"detr.{key}"
    stage, layer, part, number, kind, what = block.groups()
    norm = kind == "normalization"
    if part.startswith("shortcut"):
        name = f"downsample.{2 if norm else 1}"
    else:
        name = f"{'bn' if norm else 'conv'}{int(number) + 1}"
    return f"{_BODY}layer{int(stage) + 1}.{layer}.{name}.{what}"


def for_normalized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same answers for normalised images as the state gives for values of 0..1.

    The filters take over the deviation, and the mean of the layer behind them the rest.
    """
    mean, deviation = (
        torch.tensor(part)[None, :, None, None]
        for part in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    filters = state[FIRST_FILTERS]
    shift = (filters * mean).sum(dim=(1, 2, 3))
    return {
        **state,
        FIRST_FILTERS: filters * deviation,
        _FIRST_MEAN: state[_FIRST_MEAN] - shift,
    }
