"""Backbones: feature maps at strides 4 to 32 from images of any number of bands."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from geodl.base.errors import NotSupportedError
from geodl.nets.weights import with_pretrained

FAMILIES: dict[str, tuple[str, ...]] = {
    "ResNet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "DenseNet": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "VGG": (
        "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    ),
}  # fmt: skip
TIMM_PREFIX = "timm:"
STRIDES = (4, 8, 16, 32)

# Of timm, those whose stages have been seen to give maps at all four strides for any image size.
_TIMM_CONVOLUTIONAL = (
    "convnext", "cspdarknet", "cspresnet", "cspresnext", "darknet", "dla", "dpn", "ecaresnet",
    "efficientnet", "gernet", "hrnet", "inception_next", "legacy_seresn", "mixnet", "mnasnet",
    "mobilenetv2", "mobilenetv3", "mobilenetv4", "nfnet", "regnet", "repvgg", "res2net", "resnest",
    "resnetv2", "resnext", "rexnet", "selecsls", "seresnet", "seresnext", "skresn", "tf_efficient",
    "tf_mobilenet", "wide_resnet",
)  # fmt: skip
# Of these every map has the stride of a patch; finer and coarser ones are made of the last.
_TIMM_PLAIN = ("vit_tiny_patch", "vit_small_patch", "vit_base_patch", "deit_", "deit3_")
_TIMM_TRANSFORMER = ("edgenext", "pvt_v2", "poolformer", "swin_", "swinv2_", "tiny_vit", "nextvit")
# Names with a size or a head in them that such use does not bear.
_NOT_THESE = ("_clip", "hrnet_w18_ssld", "swinv2_cr", "tf_efficientnetv2_xl", "hgnet")


def backbone_names(families: tuple[str, ...] = ("ResNet", "DenseNet", "VGG")) -> list[str]:
    """Names of the backbones of these families, in order of size within each."""
    return [name for family in families for name in FAMILIES[family]]


@cache
def timm_names() -> tuple[str, ...]:
    """``timm:`` names of convolutional backbones; experimental."""
    own = set(backbone_names())
    names = timm.list_models()
    return tuple(f"{TIMM_PREFIX}{n}" for n in names if n not in own and _is(n, _TIMM_CONVOLUTIONAL))


@cache
def transformer_names() -> tuple[str, ...]:
    """``timm:`` names of transformer backbones with a pyramid of features; experimental."""
    return tuple(f"{TIMM_PREFIX}{n}" for n in timm.list_models() if _is(n, _TIMM_TRANSFORMER))


@cache
def plain_transformer_names() -> tuple[str, ...]:
    """``timm:`` names of transformers of one stride; experimental, for detectors."""
    return tuple(f"{TIMM_PREFIX}{n}" for n in timm.list_models() if _is(n, _TIMM_PLAIN))


def stated_name(backbone: str | Callable[..., Any]) -> str:
    """The name of a backbone that is given as text, or as the function that makes it."""
    return str(getattr(backbone, "__name__", backbone)).strip()


def check_backbone(
    name: str | Callable[..., Any], families: tuple[str, ...] = ("ResNet", "DenseNet", "VGG")
) -> str:
    """The name as a package stores it, with ``timm:`` unless it is of the named families.

    Parameters
    ----------
    name
        Text, or the function of torchvision or timm that makes the network.

    Raises
    ------
    NotSupportedError
        Nothing has that name; gives the nearest.
    """
    own = backbone_names(families)
    text = stated_name(name)
    bare = text.removeprefix(TIMM_PREFIX)
    if text in own:
        return text
    if bare in own and text != bare:
        return bare
    listed = (*timm_names(), *transformer_names(), *plain_transformer_names())
    known = {n.removeprefix(TIMM_PREFIX): n for n in listed}
    if bare in known:
        return known[bare]
    near = difflib.get_close_matches(bare, [*own, *known], n=1, cutoff=0.4)
    hint = f" Did you mean {known.get(near[0], near[0])!r}?" if near else ""
    raise NotSupportedError(
        f"There is no backbone {name!r}.{hint} Offered: {', '.join(own)}, and those of timm that "
        "backbones() lists."
    )


class Backbone(nn.Module):
    """Feature maps of an image at strides 4, 8, 16 and 32, by timm.

    A stride that a family does not have is resampled from its deepest map of the nearest stride:
    of a plain transformer from its last one (Li et al. 2022, 2203.16527).

    Parameters
    ----------
    name
        As :func:`check_backbone` returns it.
    bands
        Of the image. Pretrained first filters are repeated over the bands and scaled so that
        the responses keep their size.
    pretrained
        Load timm's default weights.

    Attributes
    ----------
    channels
        Of each map.
    """

    def __init__(self, name: str, bands: int, pretrained: bool = False) -> None:
        super().__init__()
        self.name = name
        self.body, self.places = _body(name.removeprefix(TIMM_PREFIX), bands, pretrained)
        given = self.body.feature_info.channels()
        self.channels = tuple(int(given[place]) for place in self.places)

    def forward(self, x: Tensor) -> list[Tensor]:
        """float (B, channels, ceil(H / stride), ceil(W / stride)) for each of ``STRIDES``."""
        height, width = x.shape[-2:]
        # Families round odd sizes up or down, or refuse them; whole strides suit all.
        lower, right = -height % STRIDES[-1], -width % STRIDES[-1]
        if lower or right:
            x = nn.functional.pad(x, (0, right, 0, lower), mode="replicate")
        maps = self.body(x)
        rows, cols = x.shape[-2:]
        answers = []
        for place, count, stride in zip(self.places, self.channels, STRIDES, strict=True):
            # Swin and its kin give (B, H, W, C).
            m = maps[place] if maps[place].shape[1] == count else maps[place].permute(0, 3, 1, 2)
            m = to_grid(m, (rows // stride, cols // stride))
            answers.append(m[..., : -(-height // stride), : -(-width // stride)])
        return answers

    def halves(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Early and late layers, for rates by layer group: the late hold the last two strides."""
        return module_halves(self.body)


def module_halves(body: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """Early layers of a network, and its last two."""
    parts = [p for p in body.children() if any(True for _ in p.parameters())]
    flat = [
        q
        for p in parts
        for q in (p.children() if isinstance(p, nn.ModuleList | nn.Sequential) else [p])
        if any(True for _ in q.parameters())
    ]
    if len(flat) < 2:
        return flat, []
    late = max(1, min(2, len(flat) - 1))
    return flat[:-late], flat[-late:]


def make_backbone(name: str, bands: int, pretrained: bool = True) -> tuple[Backbone, bool]:
    """A backbone, and whether pretrained weights are in it, by the rule of ``nets.weights``."""
    name = check_backbone(name)
    has_weights = timm.is_model_pretrained(name.removeprefix(TIMM_PREFIX))
    build = partial(Backbone, name, bands)
    return with_pretrained(build, name, pretrained and has_weights)


def pretrained_builders(name: str) -> list[Callable[[bool], nn.Module]]:
    """What loads the weights of a backbone; empty where there is none of that name."""
    try:
        name = check_backbone(name)
    except NotSupportedError:
        return []
    return [partial(Backbone, name, 3)] if timm.is_model_pretrained(_bare(name)) else []


def _bare(name: str) -> str:
    return name.removeprefix(TIMM_PREFIX)


def _is(name: str, prefixes: tuple[str, ...]) -> bool:
    return name.startswith(prefixes) and not any(part in name for part in _NOT_THESE)


def _body(name: str, bands: int, pretrained: bool) -> tuple[Any, tuple[int, ...]]:
    """The network, and which of its maps serves each of ``STRIDES``."""
    options: dict[str, Any] = {"features_only": True, "in_chans": bands, "pretrained": pretrained}
    options |= maps_only(name, pretrained)
    if name.startswith(_TIMM_PLAIN):
        options |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    stages = [
        _nearest_stage([entry["reduction"] for entry in _feature_info(name)], s) for s in STRIDES
    ]
    taken = sorted(set(stages))
    body: Any = timm.create_model(name, out_indices=tuple(taken), **options)
    return body, tuple(taken.index(stage) for stage in stages)


def maps_only(name: str, pretrained: bool) -> dict[str, Any]:
    """What timm's builders take besides for a network that gives maps, by its bare name."""
    if name.startswith("swin"):
        # Without it Swin takes images of one size only.
        return {"strict_img_size": False}
    if name in FAMILIES["VGG"] and not pretrained:
        # The two dense layers of 400 MB, which timm fills before it takes them off again.
        return {"mlp_ratio": 1 / 4096}
    return {}


def _nearest_stage(reductions: Sequence[int], stride: int) -> int:
    """Position of the deepest of the maps whose stride is nearest, by ratio."""
    distance = [abs(math.log2(reduction / stride)) for reduction in reductions]
    return len(distance) - 1 - distance[::-1].index(min(distance))


def to_grid(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """A feature map on the cells of a grid: averaged, or interpolated where it is coarser."""
    if tuple(x.shape[-2:]) == shape:
        return x
    if x.shape[-2] >= shape[0] and x.shape[-1] >= shape[1]:
        return nn.functional.adaptive_avg_pool2d(x, shape)
    return nn.functional.interpolate(x, size=shape, mode="bilinear", align_corners=False)


@cache
def _feature_info(name: str) -> tuple[dict[str, Any], ...]:
    with torch.device("meta"):
        model: Any = timm.create_model(name, features_only=True, pretrained=False)
    return tuple(
        {"reduction": r, "channels": c}
        for r, c in zip(model.feature_info.reduction(), model.feature_info.channels(), strict=True)
    )
