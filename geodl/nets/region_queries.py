"""The first stage of DETReg (Bar et al. 2022, 2106.04550): queries learn without any labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from geodl.base.packages import require
from geodl.nets.backbones import Backbone
from geodl.nets.queries import QueryNet, corners

# A region as the encoder sees it, px.
_CROP_PX = 64
_HIDDEN = 256


class RegionQueryNet(QueryNet):
    """Queries that find regions, and tell what the backbone makes of each region by itself.

    The backbone is frozen; it is the paper's encoder of regions, too.

    Parameters
    ----------
    body
        The backbone.
    detr
        Deformable DETR with one class: region.
    """

    def __init__(self, body: Backbone, detr: Any) -> None:
        super().__init__(body, detr)
        width = int(detr.config.d_model)
        self.embedding = nn.Sequential(
            nn.Linear(width, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, body.channels[-1]),
        )
        package = require("transformers.loss.loss_deformable_detr", "transformers")
        config = detr.config
        self.matcher = package.DeformableDetrHungarianMatcher(
            class_cost=config.class_cost, bbox_cost=config.bbox_cost, giou_cost=config.giou_cost
        )

    def layer_groups(self) -> list[list[nn.Module]]:
        early, late, new = super().layer_groups()
        return [early, late, [*new, self.embedding]]

    def answer(self, x: Tensor, labels: list[dict[str, Tensor]]) -> dict[str, Any]:
        result = self.detr(pixel_values=x, labels=labels)
        return {**result.loss_dict, "hidden": result.last_hidden_state}

    def losses_of(
        self, answer: dict[str, Any], labels: list[dict[str, Tensor]], x: Tensor
    ) -> dict[str, Tensor]:
        """Those of detection, and the mean distance (L1) of the matched queries' embeddings."""
        hidden = answer.pop("hidden")
        losses = super().losses_of(answer, labels, x)
        found = {"logits": answer["logits"], "pred_boxes": answer["pred_boxes"]}
        pairs = self.matcher(found, labels)
        told = torch.cat([hidden[i][queries] for i, (queries, _) in enumerate(pairs)])
        seen = self._encoded(
            x, [label["boxes"][own] for label, (_, own) in zip(labels, pairs, strict=True)]
        )
        distance = (self.embedding(told) - seen).abs().mean() if len(told) else told.sum()
        return {**losses, "loss": losses["loss"] + distance, "loss_embedding": distance}

    @torch.no_grad()
    def _encoded(self, x: Tensor, boxes: list[Tensor]) -> Tensor:
        """float32 (M, C): what the backbone makes of each region, cut out and scaled."""
        height, width = x.shape[-2:]
        size = x.new_tensor([width, height, width, height])
        crops = roi_align(x.float(), [corners(b) * size for b in boxes], _CROP_PX, aligned=True)
        was_training = self.backbone.training
        self.backbone.eval()
        maps = self.backbone(crops) if len(crops) else None
        self.backbone.train(was_training)
        if maps is None:
            return x.new_zeros((0, self.backbone.channels[-1]))
        return maps[-1].float().mean(dim=(2, 3))
