"""Objects among points, tile by tile: blocks, and the boxes whose centre each block owns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from geodl.bundle import ModelRef, load_model
from geodl.core.oriented import OrientedBoxes
from geodl.core.points import PointInput, PointTile, PointTileSpec
from geodl.infer.points import attributes_of, moved, point_input
from geodl.infer.side_by_side import side_by_side
from geodl.io.point_cells import SortedCloud
from geodl.nets.threads import torch_threads
from geodl.ops.point_blocks import overlapping_blocks

_COLUMNS = 9
# A box may be seen a little aside by the next block; of two the weaker is dropped at the end.
_OWN_SHARE = 1.1


def tile_boxes(
    tile: PointTile,
    net: nn.Module,
    task: Any,
    spec: PointInput,
    device: str,
    *,
    threshold: float,
    nms_overlap: float,
) -> OrientedBoxes:
    """Objects of the blocks whose centre lies in the tile's core.

    Parameters
    ----------
    net
        In eval mode, on ``device``.
    task
        Of kind ``boxes3d``.
    spec
        The blocks that the model was trained on.
    threshold
        Least score.
    nms_overlap
        Overlap of two boxes of a block beyond which the weaker is dropped.

    Returns
    -------
    Boxes in the CRS. A block owns what lies in its middle quarter and a little beyond, so that
    neighbours see an object twice rather than never.

    Raises
    ------
    ModelDataError
        The points lack an attribute that the model takes.
    """
    attributes = attributes_of(tile, spec)
    own = spec.block_size / 4 * _OWN_SHARE

    def detect(block: tuple[tuple[float, float], np.ndarray]) -> OrientedBoxes:
        centre, positions = block
        values = {name: table[positions] for name, table in attributes.items()}
        xyz = tile.xyz[positions]
        batch = moved(task.prepare([spec.encode(xyz, values, centre)]), device)
        with torch.inference_mode():
            boxes = task.detect(net, batch, threshold=threshold, nms_overlap=nms_overlap)[0]
        inside = (np.abs(boxes.boxes[:, :2]) <= own).all(axis=1)
        return boxes.take(inside).shift(*centre, float(np.median(xyz[:, 2])))

    blocks = _blocks(tile, spec)
    if device != "cpu":
        return joined([OrientedBoxes.none(), *map(detect, blocks)])
    with torch_threads(1) as threads:
        found = side_by_side(detect, blocks, threads=threads, ahead=threads)
        return joined([OrientedBoxes.none(), *found])


def _blocks(tile: PointTile, spec: PointInput) -> Iterator[tuple[tuple[float, float], np.ndarray]]:
    x0, y0, x1, y1 = tile.core
    for centre, positions in overlapping_blocks(tile.xyz[:, :2], spec.block_size):
        if x0 <= centre[0] < x1 and y0 <= centre[1] < y1:
            if len(positions) > spec.max_points:
                # As much as the model was trained on, the same points whatever the tile is.
                place = [round(2 * value / spec.block_size) + 2**40 for value in centre]
                chosen = np.random.default_rng(place).permutation(positions)[: spec.max_points]
                positions = np.sort(chosen)
            yield centre, positions


def joined(parts: list[OrientedBoxes]) -> OrientedBoxes:
    """Boxes of several blocks or tiles, one after the other."""
    return OrientedBoxes(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def to_payload(found: OrientedBoxes) -> bytes:
    """float64 (N, 9) rows of the box's seven numbers, score and label."""
    rows = np.empty((len(found), _COLUMNS), "<f8")
    rows[:, :7], rows[:, 7], rows[:, 8] = found.boxes, found.scores, found.labels
    return rows.tobytes()


def from_payload(payload: bytes) -> OrientedBoxes:
    """The opposite of :func:`to_payload`."""
    rows = np.frombuffer(payload, "<f8").reshape(-1, _COLUMNS)
    return OrientedBoxes(
        rows[:, :7].astype(np.float64), rows[:, 7].astype(np.float32), rows[:, 8].astype(np.int64)
    )


@dataclass(frozen=True, kw_only=True)
class DetectedTiles:
    """The tiles of a cloud, a block task that keeps its boxes in the ledger.

    Parameters
    ----------
    cloud
        Sorted, with the dimensions that the model takes.
    """

    cloud: SortedCloud
    model: ModelRef
    device: str
    threshold: float
    nms_overlap: float

    def probe(self) -> None:
        """Load the model, which the first tile then finds loaded."""
        load_model(self.model, self.device)

    def read(self, spec: PointTileSpec) -> PointTile:
        return self.cloud.read(spec)

    def compute(self, spec: PointTileSpec, tile: PointTile) -> tuple[OrientedBoxes, float]:
        """Boxes, and the seconds that they took."""
        model = load_model(self.model, self.device)
        points = point_input(model)
        started = time.perf_counter()
        found = tile_boxes(
            tile, model.net, model.task, points, self.device,
            threshold=self.threshold, nms_overlap=self.nms_overlap,
        )  # fmt: skip
        return found, time.perf_counter() - started

    def write(
        self, spec: PointTileSpec, computed: tuple[OrientedBoxes, float]
    ) -> tuple[dict[str, Any], bytes]:
        found, seconds = computed
        return {"seconds": {"model": seconds}, "objects": len(found)}, to_payload(found)
