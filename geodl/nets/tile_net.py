"""Networks that give one answer for a whole image: any backbone of timm and a linear head."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.errors import NotSupportedError
from geodl.nets.backbones import (
    TIMM_PREFIX,
    backbone_names,
    check_backbone,
    module_halves,
    stated_name,
    transformer_names,
)
from geodl.nets.weights import with_pretrained

# Of timm, image transformers without a pyramid of features, which whole images do not need.
_IMAGE_TRANSFORMERS = (
    "vit_", "deit", "beit", "cait", "xcit", "mvitv2", "eva02", "flexivit", "coatnet", "maxvit",
    "mobilevit", "levit",
)  # fmt: skip
# Images of transformers come in whole patches and windows.
_STRIDE = 32


@cache
def image_transformers() -> tuple[str, ...]:
    """``timm:`` names of transformers that suit whole images; experimental."""
    names = (n for n in timm.list_models() if n.startswith(_IMAGE_TRANSFORMERS))
    return tuple(dict.fromkeys([*transformer_names(), *(f"{TIMM_PREFIX}{n}" for n in names)]))


def check_tile_backbone(name: str | Callable[..., Any]) -> str:
    """The name as a package stores it: with ``timm:`` unless it is of our own families.

    Raises
    ------
    NotSupportedError
        Nothing has that name; gives the nearest.
    """
    own = backbone_names()
    bare = stated_name(name).removeprefix(TIMM_PREFIX)
    if bare in own:
        return bare
    known = timm.list_models()
    if bare in known:
        return f"{TIMM_PREFIX}{bare}"
    near = difflib.get_close_matches(bare, [*own, *known], n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise NotSupportedError(
        f"There is no backbone {name!r}.{hint} Offered: {', '.join(own)}, and all of timm."
    )


class TileNet(nn.Module):
    """One row of scores for an image.

    Parameters
    ----------
    name
        Backbone, as :func:`check_tile_backbone` returns it.
    bands
        Of the image.
    outputs
        Scores per image.
    tile_px
        Side of the images; backbones with position embeddings are built for it.
    pretrained
        Load timm's default weights into the backbone.
    drop
        Share of features dropped before the head in training.

    Raises
    ------
    NotSupportedError
        A backbone that cannot be built for such images.
    """

    def __init__(
        self,
        name: str,
        bands: int,
        outputs: int,
        tile_px: int,
        pretrained: bool = False,
        drop: float = 0.2,
    ) -> None:
        super().__init__()
        bare = name.removeprefix(TIMM_PREFIX)
        self.fixed = bool(getattr(timm.get_pretrained_cfg(bare), "fixed_input_size", False))
        self.side = -(-tile_px // _STRIDE) * _STRIDE
        options: dict[str, Any] = {"img_size": self.side} if self.fixed else {}
        try:
            body: Any = timm.create_model(
                bare, num_classes=0, in_chans=bands, pretrained=pretrained, **options
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise NotSupportedError(
                f"The backbone {name!r} suits no images of {tile_px} px with {bands} bands "
                f"({error}); take another one, or another chip_size."
            ) from error
        self.body = body
        width = int(getattr(body, "head_hidden_size", 0) or body.num_features)
        self.head = nn.Sequential(nn.Dropout(drop), nn.Linear(width, outputs))

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes."""
        return cast(nn.Module, self.body)

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late half of the backbone, then the head."""
        early, late = module_halves(self.backbone)
        # Tokens and positions are parameters of the backbone itself.
        loose = nn.ParameterList(p for p in self.backbone._parameters.values() if p is not None)
        return [[*([loose] if len(loose) else []), *early], late, [self.head]]

    def features(self, x: Tensor) -> Tensor:
        """The backbone's last map: (B, F, h, w), or what its family gives.

        Parameters
        ----------
        x
            float (B, bands, H, W).
        """
        if self.fixed:
            height, width = x.shape[-2:]
            if (height, width) != (self.side, self.side):
                low, right = self.side - height, self.side - width
                x = functional.pad(x, (0, right, 0, low), mode="replicate")
        return cast(Tensor, self.body.forward_features(x))

    def classify(self, features: Tensor) -> Tensor:
        """float (B, outputs) logits of :meth:`features`."""
        return cast(Tensor, self.head(self.body.forward_head(features, pre_logits=True)))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


def make_tile_net(
    name: str, bands: int, outputs: int, tile_px: int, pretrained: bool
) -> tuple[TileNet, bool]:
    """The network, and whether pretrained weights are in its backbone."""
    has_weights = timm.is_model_pretrained(name.removeprefix(TIMM_PREFIX))
    build = partial(TileNet, name, bands, outputs, tile_px)
    return with_pretrained(build, name, pretrained and has_weights)


def pretrained_builders(name: str) -> list[Callable[[bool], nn.Module]]:
    """What loads the weights of a backbone that only whole images take; else empty."""
    try:
        check_backbone(name)
    except NotSupportedError:
        try:
            name = check_tile_backbone(name)
        except NotSupportedError:
            return []
        return [partial(TileNet, name, 3, 1, 224)]
    return []


def activation_maps(net: TileNet, x: Tensor, outputs: Tensor) -> Tensor:
    """Where an image speaks for an output (Grad-CAM, Selvaraju et al. 2017, 1610.02391).

    Parameters
    ----------
    net
        In eval mode.
    x
        float32 (B, bands, H, W), normalised, on the net's device.
    outputs
        int64 (B,): the output to explain, one per image.

    Returns
    -------
    float32 (B, H, W) in 0..1: 1 where the image speaks most for it; all 0 where nothing does.
    """
    with torch.enable_grad():
        seen, logits = _explained(net, x)
        (gradient,) = torch.autograd.grad(logits.gather(1, outputs[:, None]).sum(), seen)
    maps, slopes = _as_maps(net, seen.detach()), _as_maps(net, gradient)
    weights = slopes.mean(dim=(2, 3), keepdim=True)
    heat = (maps * weights).sum(dim=1, keepdim=True).relu()
    heat = heat / heat.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    height, width = x.shape[-2:]
    size = (net.side, net.side) if net.fixed else (height, width)
    heat = functional.interpolate(heat, size=size, mode="bilinear", align_corners=False)
    return heat[:, 0, :height, :width]


def _explained(net: TileNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """The map to explain with, and the logits that follow from it.

    It is the backbone's last map. With a class token it is the last block's input, after which
    the other tokens play no part.
    """
    blocks = getattr(net.body, "blocks", None)
    if not hasattr(net.body, "cls_token") or not isinstance(blocks, nn.Sequential | nn.ModuleList):
        seen = net.features(x).detach().requires_grad_()
        return seen, net.classify(seen)
    kept: list[Tensor] = []

    def take(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        kept.append(inputs[0].detach().requires_grad_())
        return (kept[0], *inputs[1:])

    handle = blocks[-1].register_forward_pre_hook(take)
    try:
        logits = net(x)
    finally:
        handle.remove()
    return kept[0], logits


def _as_maps(net: TileNet, features: Tensor) -> Tensor:
    """(B, F, h, w) from tokens (B, N, F), or from maps with channels last or first."""
    width = int(net.body.num_features)
    if features.ndim == 3:
        prefix = int(getattr(net.body, "num_prefix_tokens", 0))
        side = math.isqrt(features.shape[1] - prefix)
        if side * side != features.shape[1] - prefix:
            # Some families add their class token after these blocks.
            side = math.isqrt(features.shape[1])
        return features[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
    return features if features.shape[1] == width else features.permute(0, 3, 1, 2)
