"""U-Net (Ronneberger et al. 2015, 1505.04597) on any encoder, bands and image size."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.errors import NotSupportedError
from geodl.nets.backbones import TIMM_PREFIX
from geodl.nets.weights import with_pretrained

STRIDE = 32


class UNet(nn.Module):
    """Class scores at every pixel.

    Parameters
    ----------
    name
        Backbone, as :func:`geodl.nets.backbones.check_backbone` returns it.
    bands
        Of the image.
    outputs
        Channels of the answer.
    pretrained
        Load timm's default weights into the encoder.

    Raises
    ------
    NotSupportedError
        A backbone whose feature maps suit no U-Net.
    """

    def __init__(self, name: str, bands: int, outputs: int, pretrained: bool = False) -> None:
        super().__init__()
        bare = name.removeprefix(TIMM_PREFIX)
        # Without it Swin takes images of one size only.
        options = {"strict_img_size": False} if bare.startswith("swin") else {}
        try:
            self.net = smp.Unet(
                f"tu-{bare}",
                encoder_weights=True if pretrained else None,
                in_channels=bands,
                classes=outputs,
                **options,
            )
        except (ValueError, AttributeError) as error:
            raise NotSupportedError(
                f"The backbone {name!r} suits no U-Net ({error}); take one that backbones() lists."
            ) from error

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes."""
        return self.net.encoder

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late half of the encoder, then decoder and head."""
        parts = _layers(self.net.encoder)
        half = (len(parts) + 1) // 2
        return [parts[:half], parts[half:], [self.net.decoder, self.net.segmentation_head]]

    def forward(self, x: Tensor) -> Tensor:
        """float (B, outputs, H, W) logits of float (B, bands, H, W); any H and W."""
        height, width = x.shape[-2:]
        padded = pad_to_stride(x, STRIDE)
        return self.net(padded)[..., :height, :width]


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """Grown right and down to whole strides by mirroring, where too small by repeating the edge."""
    height, width = x.shape[-2:]
    below, right = -height % stride, -width % stride
    if not below and not right:
        return x
    mode = "reflect" if below < height and right < width else "replicate"
    return functional.pad(x, (0, right, 0, below), mode=mode)


def _layers(encoder: nn.Module) -> list[nn.Module]:
    """The encoder's stages in order; what holds no weights is left out."""
    parts = [p for p in encoder.children() if _has_weights(p)]
    while len(parts) == 1:
        parts = [p for p in parts[0].children() if _has_weights(p)]
    return [
        stage
        for part in parts
        for stage in (
            part.children() if isinstance(part, nn.ModuleList | nn.Sequential) else [part]
        )
        if _has_weights(stage)
    ]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def make_unet(name: str, bands: int, outputs: int, pretrained: bool) -> tuple[UNet, bool]:
    """A U-Net, and whether pretrained weights are in its encoder."""
    has_weights = timm.is_model_pretrained(name.removeprefix(TIMM_PREFIX))
    return with_pretrained(
        lambda load: UNet(name, bands, outputs, load), name, pretrained and has_weights
    )
