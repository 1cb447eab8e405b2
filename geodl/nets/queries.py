"""Detectors that answer with a fixed number of queries, each one object or none.

The transformers are those of the package transformers: Deformable DETR (Zhu et al. 2021,
2010.04159), RT-DETR v2 (Lv et al. 2024, 2407.17140) and D-FINE (Peng et al. 2024, 2410.13842),
with their bipartite matching and losses. What differs is around them: any backbone, any bands,
any image size, and weights that training can start from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geodl.base.packages import require
from geodl.nets.backbones import STRIDES, Backbone

FINEST = 1
"""Position in ``STRIDES`` of the finest map that the queries look at."""
HEADS = 8
# The coarsest map has cells of this side; images are padded to whole ones.
_CELL = STRIDES[-1]
# Chance of an object that an untrained query reports: 1708.02002.
_PRIOR = 0.01

Targets = Sequence[Mapping[str, Tensor]]


class QueryNet(nn.Module):
    """A backbone and a transformer with queries.

    Parameters
    ----------
    body
        The backbone.
    detr
        An object detector of the package transformers, made by one of the functions below.
    """

    def __init__(self, body: Backbone, detr: Any) -> None:
        super().__init__()
        self.detr = detr
        self.detr.model.backbone = MapsOfBackbone(body)
        # Validation wants boxes and losses of one pass, so the losses are made apart from it.
        self.criterion = detr.loss_function
        self.detr.loss_function = _keep

    @property
    def backbone(self) -> Backbone:
        """What is frozen after loading pretrained weights."""
        body: Backbone = self.detr.model.backbone.body
        return body

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late backbone, then all that is new."""
        early, late = self.backbone.halves()
        new = [part for part in self.detr.model.children() if part is not self.detr.model.backbone]
        heads = [part for part in self.detr.children() if part is not self.detr.model]
        # One module, because the decoder and the detector may share heads.
        return [early, late, [nn.ModuleList([_Loose(self.detr.model), *new, *heads])]]

    def forward(self, x: Tensor) -> QueryOutput:
        """Queries of float (B, C, H, W); in training they wait for the targets."""
        height, width = x.shape[-2:]
        lower, right = -height % _CELL, -width % _CELL
        if lower or right:
            x = nn.functional.pad(x, (0, right, 0, lower), mode="replicate")
        kind = x.device.type
        precision = partial(
            torch.autocast,
            kind,
            dtype=torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
        )
        answer = None if self.training else self.answer(x, [])
        return QueryOutput(
            answer, partial(self._losses, precision, x, answer), (height, width), x.shape[-2:]
        )

    def answer(self, x: Tensor, labels: list[dict[str, Tensor]]) -> dict[str, Any]:
        """What the losses need, ``logits`` and ``pred_boxes`` among it.

        Parameters
        ----------
        x
            float (B, C, H, W), H and W whole numbers of the coarsest cells.
        labels
            As transformers has them; RT-DETR and D-FINE train with noisy copies of them, too.
        """
        kept: dict[str, Any] = self.detr(pixel_values=x, labels=labels).loss_dict
        return kept

    def _losses(
        self, precision: Any, x: Tensor, answer: dict[str, Any] | None, targets: Targets
    ) -> dict[str, Tensor]:
        labels = as_labels(targets, x)
        if answer is None:
            with precision():
                answer = self.answer(x, labels)
        # Half precision ends here: coordinates need more than 8 bits.
        exact = {k: v.float() if _is_float(v) else v for k, v in answer.items()}
        return self.losses_of(exact, labels, x)

    def losses_of(
        self, answer: dict[str, Any], labels: list[dict[str, Tensor]], x: Tensor
    ) -> dict[str, Tensor]:
        """0-d ``loss`` and its parts, of an answer in full precision."""
        config = self.detr.config
        total, parts, _ = self.criterion(labels=labels, device=x.device, config=config, **answer)
        return {"loss": total, **_main_parts(parts)}


class _Loose(nn.Module):
    """The parameters that a module holds itself, not through a layer."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        for name, value in owner.named_parameters(recurse=False):
            self.register_parameter(name, value)


class MapsOfBackbone(nn.Module):
    """Our backbone where transformers looks for its own.

    Parameters
    ----------
    body
        Its maps from ``FINEST`` on are handed over.
    """

    def __init__(self, body: Backbone) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Maps, each with a mask that is True everywhere: padding repeats the edge's pixels."""
        maps = self.body(pixel_values)[FINEST:]
        return [(m, m.new_ones((len(m), *m.shape[-2:]), dtype=torch.bool)) for m in maps]


class QueryOutput:
    """What the queries say; makes losses of it, or boxes.

    Parameters
    ----------
    answer
        ``logits`` (B, Q, K) and ``pred_boxes`` (B, Q, 4): centre, width and height in shares of
        the padded image. None in training, where all is made with the targets.
    losses
        Of the targets.
    shape, padded
        Height and width of the images as they came, and as the queries saw them.
    """

    # No dataclass: the training engine would copy it field by field.
    def __init__(
        self,
        answer: dict[str, Any] | None,
        losses: Callable[[Targets], dict[str, Tensor]],
        shape: tuple[int, int],
        padded: Sequence[int],
    ) -> None:
        self.logits = None if answer is None else answer["logits"].float()
        self.boxes = None if answer is None else answer["pred_boxes"].float()
        self.make_losses = losses
        self.shape, self.padded = shape, tuple(padded)

    def losses(self, targets: Targets) -> dict[str, Tensor]:
        """0-d ``loss`` and its parts against ``boxes`` and ``labels`` (1..K) of each image."""
        return self.make_losses(targets)

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes above a score, each query's best class, best first.

        Returns
        -------
        For each image float32 (N, 4) boxes inside it, float32 (N,) scores, int64 (N,) labels
        1..K.
        """
        if self.logits is None or self.boxes is None:
            raise RuntimeError("queries are decoded in eval mode only")
        best, label = self.logits.sigmoid().max(dim=2)
        height, width = self.padded
        boxes = corners(self.boxes) * self.boxes.new_tensor([width, height, width, height])
        limit = boxes.new_tensor([*self.shape[::-1], *self.shape[::-1]])
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        solid = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        keep = (best >= threshold) & solid
        return [(boxes[i][k], best[i][k], label[i][k] + 1) for i, k in enumerate(keep)]


def as_labels(targets: Targets, x: Tensor) -> list[dict[str, Tensor]]:
    """Targets as transformers has them: classes from 0; centre, width and height in shares."""
    height, width = x.shape[-2:]
    labels = []
    for target in targets:
        boxes = target["boxes"].to(x.device, torch.float32).reshape(-1, 4)
        size = boxes.new_tensor([width, height])
        low, high = boxes[:, :2] / size, boxes[:, 2:] / size
        shares = torch.cat([(low + high) / 2, high - low], dim=1)
        labels.append({"class_labels": target["labels"].to(x.device) - 1, "boxes": shares})
    return labels


def corners(boxes: Tensor) -> Tensor:
    """x0, y0, x1, y1 of boxes (..., 4) by centre, width and height."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def cells(tile_px: int) -> int:
    """Places of all maps on a tile, of which RT-DETR and D-FINE choose their queries."""
    padded = tile_px + -tile_px % _CELL
    return int(sum((padded // stride) ** 2 for stride in STRIDES[FINEST:]))


def _keep(
    logits: Tensor,
    labels: Any,
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    **more: Any,
) -> tuple[None, dict[str, Any], None]:
    """In place of a loss: what it would be made of."""
    parts = {"outputs_class": outputs_class, "outputs_coord": outputs_coord, **more}
    return None, {"logits": logits, "pred_boxes": pred_boxes, **parts}, None


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _main_parts(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses of the last layer, without those of the layers before it."""
    names = ("loss_ce", "loss_vfl", "loss_bbox", "loss_giou", "loss_fgl")
    return {name: parts[name] for name in names if name in parts}


# ---- the transformers


def deformable_detr(body: Backbone, classes: int, options: Mapping[str, Any]) -> Any:
    """Deformable DETR with iterative refinement of boxes.

    Parameters
    ----------
    classes
        K.
    options
        ``num_queries``, ``width``, ``encoder_layers``, ``decoder_layers``.
    """
    package = require("transformers", "transformers")
    config = package.DeformableDetrConfig(
        **_shared(package, body, classes, options),
        dropout=0.0,
        with_box_refine=True,
        auxiliary_loss=True,
        disable_custom_kernels=True,
        num_feature_levels=4,
    )
    detr = package.DeformableDetrForObjectDetection(config)
    _start_afresh(detr)
    bias = -torch.log(torch.tensor((1 - _PRIOR) / _PRIOR)).item()
    for level, (score, box) in enumerate(zip(detr.class_embed, detr.bbox_embed, strict=True)):
        nn.init.constant_(score.bias, bias)
        nn.init.zeros_(box.layers[-1].weight)
        nn.init.zeros_(box.layers[-1].bias)
        if level == 0:
            # Boxes begin small.
            nn.init.constant_(box.layers[-1].bias[2:], -2.0)
    detr.model.decoder.bbox_embed = detr.bbox_embed
    detr.model.encoder.get_reference_points = _centres
    return detr


def _centres(shapes: Sequence[tuple[int, int]], valid_ratios: Tensor, device: Any) -> Tensor:
    """float (B, places, levels, 2): where each place of each map lies, x and y in shares.

    As transformers computes it for images without padding; but its ``linspace`` turns into
    float64 in ONNX, for which onnxruntime samples no grid.
    """
    parts = []
    for height, width in shapes:
        y, x = (
            (torch.arange(int(side), dtype=valid_ratios.dtype, device=device) + 0.5) / int(side)
            for side in (height, width)
        )
        rows, cols = torch.meshgrid(y, x, indexing="ij")
        parts.append(torch.stack([cols.reshape(-1), rows.reshape(-1)], dim=-1))
    batch, levels = valid_ratios.shape[:2]
    return torch.cat(parts)[None, :, None].expand(batch, -1, levels, -1)


def rt_detr(body: Backbone, classes: int, options: Mapping[str, Any]) -> Any:
    """RT-DETR v2; takes ``denoising_queries`` besides the options of Deformable DETR."""
    package = require("transformers", "transformers")
    config = package.RTDetrV2Config(**_real_time(package, body, classes, options))
    return _without_copies(package.RTDetrV2ForObjectDetection(config))


def d_fine(body: Backbone, classes: int, options: Mapping[str, Any]) -> Any:
    """D-FINE; takes the options of RT-DETR v2."""
    package = require("transformers", "transformers")
    config = package.DFineConfig(**_real_time(package, body, classes, options))
    return _with_constants(_without_copies(package.DFineForObjectDetection(config)))


def _shared(
    package: Any, body: Backbone, classes: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    width = int(options["width"])
    return {
        "num_labels": classes,
        "num_queries": int(options["num_queries"]),
        "d_model": width,
        "encoder_layers": int(options["encoder_layers"]),
        "decoder_layers": int(options["decoder_layers"]),
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        # Each layer of the decoder has heads of its own, as in the papers.
        "tie_word_embeddings": False,
        # Stands for our backbone until that takes its place; its channels must be the same.
        "backbone_config": package.ResNetConfig(
            embedding_size=HEADS,
            hidden_sizes=list(body.channels),
            depths=[1] * len(body.channels),
            layer_type="bottleneck",
            out_features=[f"stage{level + 1}" for level in range(FINEST, len(body.channels))],
        ),
    }


def _real_time(
    package: Any, body: Backbone, classes: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    width = int(options["width"])
    return {
        **_shared(package, body, classes, options),
        "encoder_hidden_dim": width,
        "encoder_in_channels": list(body.channels[FINEST:]),
        "decoder_in_channels": [width] * len(body.channels[FINEST:]),
        "feat_strides": list(STRIDES[FINEST:]),
        "num_denoising": int(options["denoising_queries"]),
        "freeze_backbone_batch_norms": False,
        "initializer_bias_prior_prob": _PRIOR,
    }


def _without_copies(detr: Any) -> Any:
    """The decoder's own heads are used; those beside it are copies that nothing reads."""
    _start_afresh(detr)
    del detr.class_embed, detr.bbox_embed
    return detr


def _with_constants(detr: Any) -> Any:
    """Numbers that no training changes become buffers, so that unfreezing a model leaves them.

    They keep their names in the state: 3.1 of 2410.13842 has them as constants.
    """
    for module in detr.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if not value.requires_grad:
                delattr(module, name)
                module.register_buffer(name, value.detach())
    return detr


def _start_afresh(detr: Any) -> None:
    """Weights to train from: transformers' own suit networks that are loaded at once.

    It draws plain layers from a narrow normal distribution, the scales of batch norms too. Here
    they start as torch has them; what a part of the transformer sets for itself is set again.
    """
    plain = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.BatchNorm2d, nn.GroupNorm)
    for module in detr.modules():
        if isinstance(module, plain):
            module.reset_parameters()
    for module in reversed(list(detr.modules())):
        if not isinstance(module, plain):
            detr._init_weights(module)
