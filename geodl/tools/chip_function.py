"""Classify Objects in ArcGIS Pro: labels of the chips that it cuts."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import shapely

from geodl.base.errors import DataError
from geodl.bundle import load_model
from geodl.infer.chips import reduction
from geodl.infer.delivered import DeliveredPixels, delivered_block
from geodl.infer.labels import Label, LabelOptions, describer, network_chip, read_reduced
from geodl.infer.tiles import TileRunner
from geodl.tools.esri_json import feature_set, fields_json
from geodl.tools.function_arguments import argument
from geodl.tools.label_job import label_defaults, label_options
from geodl.tools.raster_function import BlockFunction


class ChipFunction(BlockFunction):
    """A classifier of chips, each of which Pro has cut around an object."""

    _options: LabelOptions | None = None
    _batch = 1

    @property
    def _several(self) -> bool:
        return bool(self.bundle.parameters.get("multilabel"))

    def _arguments(self) -> list[dict[str, Any]]:
        defaults = label_defaults(self._several, self.device, self.contract.tile_px)
        return [argument(name, value) for name, value in defaults.items()]

    def _configured(self, given: Mapping[str, Any]) -> dict[str, Any]:
        side = self.contract.tile_px
        self._options, self._batch = label_options(given, self._several, self.device, side)
        chip = self.contract.chip
        size = (side, side) if chip is None else chip.size_yx
        return {
            "padding": 0,
            "tx": size[1],
            "ty": size[0],
            "CropSizeFixed": int(chip is None or chip.fixed),
            "BlackenAroundFeature": int(chip is not None and chip.blacken),
            "batch_size": self._batch,
        }

    @property
    def options(self) -> LabelOptions:
        """As configured, or the model's defaults."""
        if self._options is None:
            self._configured({})
        return self._options or LabelOptions()

    def _fields(self) -> dict[str, str]:
        confidence = "String" if self._several else "Double"
        pictures = {"ExpMap": "Blob"} if self.options.explain else {}
        return {"Confidence": confidence, "Label": "String", **pictures}

    def fields(self) -> str:
        """Of the labels, for ``getFields()``."""
        return fields_json(self._fields())

    def features(self, pixels: Sequence[Any], masks: Sequence[Any] | None) -> str:
        """One label per chip, in their order, as an Esri feature set of the chips' outlines.

        Parameters
        ----------
        pixels, masks
            Lists of what :func:`geodl.infer.delivered.delivered_block` takes.

        Raises
        ------
        DataError
            Lists of different lengths.
        """
        there = [None] * len(pixels) if masks is None else masks
        if len(there) != len(pixels):
            raise DataError(f"{len(pixels)} chips came with {len(there)} masks; one each is needed")
        model = load_model(self.ref, self.device)
        runner = TileRunner(
            model.net, model.contract.normalization, batch=self._batch, device=self.device
        )
        chips = self._chips(pixels, there)
        labels = [label for _, label in runner.run(chips, describer(model, self.options))]
        sizes = [np.shape(one)[-2:] for one in pixels]
        shapes = [shapely.box(0, 0, width, height) for height, width in sizes]
        return feature_set(self._fields(), [self._row(label) for label in labels], shapes)

    def _chips(
        self, pixels: Sequence[Any], masks: Sequence[Any]
    ) -> Iterator[tuple[int, np.ndarray]]:
        side = self.contract.tile_px
        for k, (data, mask) in enumerate(zip(pixels, masks, strict=True)):
            block = delivered_block(data, mask, self.contract)
            window = DeliveredPixels.alone(block).frame
            if reduction(window, side) > 1:
                block = read_reduced(DeliveredPixels.alone(block), window, side)
            yield k, network_chip(block, window, side)

    def _row(self, label: Label) -> dict[str, Any]:
        scores = [100 * score for score in label.scores]
        several = ",".join(f"{score:.2f}" for score in scores)
        row: dict[str, Any] = {
            "Confidence": several if self._several else scores[0],
            "Label": ",".join(label.names),
        }
        if self.options.explain:
            row["ExpMap"] = base64.b64encode(label.picture).decode()
        return row
