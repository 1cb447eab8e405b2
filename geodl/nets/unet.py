"""U-Net (Ronneberger et al. 2015, 1505.04597) on any encoder, bands and image size."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.errors import NotSupportedError
from geodl.nets.backbones import TIMM_PREFIX
from geodl.nets.encoder import STRIDE, encoder_halves
from geodl.nets.weights import with_pretrained


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
        heads: list[nn.Module] = [self.net.decoder, self.net.segmentation_head]
        return [*encoder_halves(self.net.encoder), heads]

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


def make_unet(name: str, bands: int, outputs: int, pretrained: bool) -> tuple[UNet, bool]:
    """A U-Net, and whether pretrained weights are in its encoder."""
    has_weights = timm.is_model_pretrained(name.removeprefix(TIMM_PREFIX))
    return with_pretrained(
        lambda load: UNet(name, bands, outputs, load), name, pretrained and has_weights
    )
