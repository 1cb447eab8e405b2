"""PSPNetClassifier: a class for every pixel, by pyramid pooling."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from geodl.base.errors import OptionError
from geodl.base.options import as_bool
from geodl.core.classes import ClassTable
from geodl.models.pixel_classifier import PixelClassifier
from geodl.models.pixel_options import PIXEL_KEYWORDS, pooling_sizes, refuse_more, task_options
from geodl.nets.backbones import check_backbone
from geodl.nets.encoder import STRIDE, encoder_channels, make_encoder
from geodl.nets.segmenter import PyramidHead, PyramidUnetHead, Segmenter
from geodl.tasks.base import Task
from geodl.tasks.pixels import PixelTask

_DEFAULT_BACKBONE = "resnet50"
_DEFAULT_SIZES = (1, 2, 3, 6)
_DILATED_STRIDE = 8
_NETWORK = (
    "backbone", "use_unet", "pyramid_sizes", "unet_aux_loss", "pointrend", "keep_dilation",
    "pretrained", "vggv2",
)  # fmt: skip


class PSPNetClassifier(PixelClassifier):
    """Pixel classifier with pyramid pooling (Zhao et al. 2017, 1612.01105).

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        Encoder, one of ``supported_backbones``; None is resnet50.
    use_unet
        Decode with a U-Net after the pooling; False: as in the paper, on a dilated encoder.
    pyramid_sizes
        Sides of the grids that the deepest map is pooled to.
    pretrained_path
        A saved model to start from.
    unet_aux_loss
        Add a loss on the encoder's last map but one; only with ``use_unet``.
    pointrend
        Refine borders at points (1912.08193).
    **kwargs
        ``class_balancing`` (False), ``mixup`` (False), ``focal_loss`` (False),
        ``dice_loss_fraction`` (0), ``dice_loss_average`` (``"micro"`` or ``"macro"``),
        ``ignore_classes`` (class values that add no loss and are never predicted),
        ``keep_dilation`` (False; with ``pointrend`` and without ``use_unet``: keep the encoder
        dilated, for more accuracy and memory), ``pretrained`` (True: load weights into the
        backbone).

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    keywords: ClassVar[tuple[str, ...]] = (*PIXEL_KEYWORDS, "keep_dilation", "pretrained")

    def __init__(
        self,
        data: Any,
        backbone: str | None = None,
        use_unet: bool = True,
        pyramid_sizes: Sequence[int] = [1, 2, 3, 6],
        pretrained_path: str | os.PathLike[str] | None = None,
        unet_aux_loss: bool = False,
        pointrend: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        refuse_more(args, type(self).__name__)
        if as_bool(unet_aux_loss, "unet_aux_loss") and not as_bool(use_unet, "use_unet"):
            raise OptionError("unet_aux_loss=True is for use_unet=True only; set one of them.")
        self._setup_classifier(
            data,
            backbone or _DEFAULT_BACKBONE,
            pretrained_path,
            kwargs,
            switches={"use_unet": use_unet, "unet_aux_loss": unet_aux_loss, "pointrend": pointrend},
            own={"keep_dilation": False, "pretrained": True},
            pyramid_sizes=pooling_sizes(pyramid_sizes),
        )

    @classmethod
    def parameter_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        # Documented of other programs' VGG encoders; there is one kind here.
        return {"vggv2": False}

    @classmethod
    def build(
        cls,
        *,
        classes: ClassTable,
        bands: int,
        tile_px: int,
        parameters: Mapping[str, Any],
        pretrained: bool,
        batch_size: int | None,
    ) -> tuple[nn.Module, Task, bool]:
        task = PixelTask(classes, **task_options(parameters, _NETWORK))
        unet, pointrend = parameters.get("use_unet", True), parameters.get("pointrend", False)
        sizes = pooling_sizes(parameters.get("pyramid_sizes", _DEFAULT_SIZES))
        dilated = not unet and (not pointrend or parameters.get("keep_dilation", False))
        encoder, loaded = make_encoder(
            check_backbone(str(parameters.get("backbone", _DEFAULT_BACKBONE))),
            bands,
            pretrained and bool(parameters.get("pretrained", True)),
            _DILATED_STRIDE if dilated else STRIDE,
        )
        channels, outputs = encoder_channels(encoder), task.outputs
        head: nn.Module
        if unet:
            # PointRend goes on from stride 4; without it the decoder reaches every pixel.
            head = PyramidUnetHead(channels, outputs, sizes, steps=3 if pointrend else 5)
        else:
            head = PyramidHead(channels, outputs, sizes)
        auxiliary = bool(unet and parameters.get("unet_aux_loss", False))
        net = Segmenter(encoder, head, outputs, auxiliary=auxiliary, pointrend=bool(pointrend))
        return net, task, loaded

    def accuracy(
        self,
        input: Any = None,  # noqa: A002  # a documented name
        target: Any = None,
        void_code: int = 0,
        class_mapping: Any = None,
    ) -> float:
        """Share of pixels with the right class.

        Parameters
        ----------
        input, target
            Scores (B, K + 1, H, W) and true network outputs (B, H, W) or (B, 1, H, W) of a batch;
            both None: the validation set.
        void_code
            Of ``target``: does not count. Without effect on the validation set.
        class_mapping
            Class name by value; if one is named ``NoData``, ``void_code`` is its value instead.

        Raises
        ------
        OptionError
            Only one of ``input`` and ``target``.
        """
        if (input is None) != (target is None):
            raise OptionError("accuracy() takes input and target together, or neither.")
        if input is None:
            return super().accuracy()
        named = [v for v, n in (class_mapping or {}).items() if str(n).lower() == "nodata"]
        void = named[0] if named else void_code
        truth = torch.as_tensor(target)
        truth = truth.squeeze(1) if truth.ndim == 4 else truth
        counted = truth != void
        hits = torch.as_tensor(input).argmax(dim=1)[counted] == truth[counted]
        return float(hits.float().mean()) if len(hits) else 0.0

    def freeze(self) -> None:
        """Keep the backbone as it is in further training."""
        self._net.backbone.requires_grad_(False)
