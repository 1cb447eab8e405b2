"""Classes of points, tile by tile: blocks, votes, and the points of the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geodl.base.errors import ModelDataError
from geodl.bundle import LoadedModel, ModelRef, load_model
from geodl.core.points import PointInput, PointTile, PointTileSpec
from geodl.formats.point_blocks import ATTRIBUTE_NAMES
from geodl.infer.side_by_side import side_by_side
from geodl.io.point_cells import SortedCloud, save_array
from geodl.nets.threads import torch_threads
from geodl.ops.point_blocks import overlapping_blocks

# Points that a GPU takes at once; a CPU gains nothing by more than one block.
_GPU_POINTS = 2**18
# Batches that are made while the network runs.
_PREPARED_AHEAD = 2


@dataclass(frozen=True, slots=True)
class _Block:
    """Points of a block, or of a part of one: positions in the tile, in an order drawn by chance.

    Networks that sample by taking the first points thus sample by chance.
    """

    positions: np.ndarray
    centre: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Blocks as the network takes them, and the seconds that it took to make them so."""

    blocks: Sequence[_Block]
    batch: Any
    prepare_s: float


@dataclass(frozen=True, slots=True)
class _Scored:
    """Logits float32 (M, K) of each block, padded, and the seconds that they took."""

    blocks: Sequence[_Block]
    scores: np.ndarray
    prepare_s: float
    model_s: float


def tile_blocks(tile: PointTile, spec: PointInput) -> Iterator[_Block]:
    """Blocks that hold a point of the core, in an order that depends on their place only.

    What a block holds and how it is divided depends on its own points, not on the tile, as long as
    the tile's buffer is at least a block wide.
    """
    core = tile.inside
    step = spec.block_size / 2
    for centre, positions in overlapping_blocks(tile.xyz[:, :2], spec.block_size):
        if not core[positions].any():
            continue
        place = [round(value / step) + 2**40 for value in centre]
        generator = np.random.default_rng(place)
        parts = -(-len(positions) // spec.max_points)
        for part in np.array_split(generator.permutation(positions), parts):
            if core[part].any():
                yield _Block(part, centre)


def tile_scores(
    tile: PointTile, net: nn.Module, task: Any, spec: PointInput, device: str
) -> tuple[np.ndarray, dict[str, float]]:
    """Mean of the logits of all blocks that hold a point.

    Parameters
    ----------
    net
        In eval mode, on ``device``.
    task
        Of kind ``points``.
    spec
        The blocks that the model was trained on.

    Returns
    -------
    float32 (N, K) for the points of the core, in the tile's order; and seconds by stage.

    Raises
    ------
    ModelDataError
        The points lack an attribute that the model takes.
    """
    core = np.flatnonzero(tile.inside)
    total = np.zeros((len(tile), len(spec.codes)), np.float32)
    votes = np.zeros(len(tile), np.int32)
    attributes = attributes_of(tile, spec)

    def prepare(blocks: Sequence[_Block]) -> _Prepared:
        started = time.perf_counter()
        tables = [
            spec.encode(
                tile.xyz[b.positions],
                {name: values[b.positions] for name, values in attributes.items()},
                b.centre,
            )
            for b in blocks
        ]
        # A GPU looks for its neighbours itself.
        batch = task.prepare(tables, device=None if device == "cpu" else device)
        return _Prepared(blocks, batch, time.perf_counter() - started)

    def score(done: _Prepared) -> _Scored:
        started = time.perf_counter()
        with torch.inference_mode():
            scores = task.scores(net, moved(done.batch, device)).float().cpu().numpy()
        return _Scored(done.blocks, scores, done.prepare_s, time.perf_counter() - started)

    seconds = {"prepare": 0.0, "model": 0.0}
    for done in _scored(prepare, score, _batches(tile_blocks(tile, spec), device), device):
        for block, found in zip(done.blocks, done.scores, strict=True):
            total[block.positions] += found[: len(block.positions)]
            votes[block.positions] += 1
        seconds["prepare"] += done.prepare_s
        seconds["model"] += done.model_s
    return total[core] / votes[core, None], seconds


def attributes_of(tile: PointTile, spec: PointInput) -> dict[str, np.ndarray]:
    """Values of a tile's points for each feature that a model takes, by the feature's name.

    Raises
    ------
    ModelDataError
        The points lack one.
    """
    found = {}
    for name in (feature.name for feature in spec.features):
        dimension = ATTRIBUTE_NAMES.get(name, name)
        if dimension not in tile.attributes:
            raise ModelDataError(f"The model takes {name!r}, which the points do not have.")
        found[name] = tile.attributes[dimension]
    return found


def _batches(blocks: Iterator[_Block], device: str) -> Iterator[list[_Block]]:
    """One block at a time for a CPU; for a GPU as many as it takes at once."""
    batch: list[_Block] = []
    for block in blocks:
        longest = max(len(b.positions) for b in [*batch, block])
        if batch and (device == "cpu" or longest * (len(batch) + 1) > _GPU_POINTS):
            yield batch
            batch = []
        batch.append(block)
    if batch:
        yield batch


def _scored(
    prepare: Callable[[Sequence[_Block]], _Prepared],
    score: Callable[[_Prepared], _Scored],
    batches: Iterator[list[_Block]],
    device: str,
) -> Iterator[_Scored]:
    """Each batch with its scores, in order: on a CPU side by side, else prepared ahead."""
    if device != "cpu":
        for prepared in side_by_side(prepare, batches, threads=1, ahead=_PREPARED_AHEAD):
            yield score(prepared)
        return
    with torch_threads(1) as threads:
        for done in side_by_side(
            lambda blocks: score(prepare(blocks)), batches, threads=threads, ahead=threads
        ):
            # Of the time that passed, this block had its share.
            yield replace(done, prepare_s=done.prepare_s / threads, model_s=done.model_s / threads)


def moved(value: Any, device: str) -> Any:
    """Tensors inside containers, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(item, device) for item in value)
    return value


def needed_dimensions(spec: PointInput) -> tuple[str, ...]:
    """LAS dimensions that a model's features are made of."""
    return tuple(dict.fromkeys(ATTRIBUTE_NAMES.get(f.name, f.name) for f in spec.features))


def label_dtype(spec: PointInput, *, confidence: bool, probabilities: bool) -> np.dtype[Any]:
    """Fields of a classified point."""
    fields: list[Any] = [("source", np.int32), ("index", np.int64), ("label", np.uint8)]
    if confidence:
        fields.append(("confidence", np.float32))
    if probabilities:
        fields.append(("probabilities", np.float32, (len(spec.codes),)))
    return np.dtype(fields)


@dataclass(frozen=True, kw_only=True)
class ClassifiedTiles:
    """The tiles of a cloud, a block task of :func:`geodl.runtime.run.run_blocks`.

    Parameters
    ----------
    cloud
        Sorted, with the dimensions that the model takes.
    folder
        Takes one file of :func:`label_dtype` for each tile.
    write_codes
        Class codes that may be given; None: all of the model's.
    """

    cloud: SortedCloud
    model: ModelRef
    device: str
    folder: Path
    confidence: bool = False
    probabilities: bool = False
    write_codes: tuple[int, ...] | None = None

    def probe(self) -> None:
        """Load the model, which the first tile then finds loaded."""
        load_model(self.model, self.device)

    def read(self, spec: PointTileSpec) -> PointTile:
        return self.cloud.read(spec)

    def compute(
        self, spec: PointTileSpec, tile: PointTile
    ) -> tuple[np.ndarray | None, dict[str, float]]:
        """Classified points of the core, or None where there is none; seconds by stage."""
        core = tile.inside
        if not core.any():
            return None, {}
        model = load_model(self.model, self.device)
        points = point_input(model)
        logits, seconds = tile_scores(tile, model.net, model.task, points, self.device)
        found = np.empty(len(logits), self._dtype(points))
        found["source"], found["index"] = tile.source[core], tile.index[core]
        shares = _softmax(logits)
        codes = np.array(points.codes)
        allowed = np.ones(len(codes), bool)
        if self.write_codes is not None:
            allowed = np.isin(codes, self.write_codes)
        best = np.flatnonzero(allowed)[shares[:, allowed].argmax(axis=1)]
        found["label"] = codes[best]
        if self.confidence:
            found["confidence"] = shares[np.arange(len(best)), best]
        if self.probabilities:
            found["probabilities"] = shares
        return found, seconds

    def write(
        self, spec: PointTileSpec, computed: tuple[np.ndarray | None, dict[str, float]]
    ) -> tuple[dict[str, Any], bytes]:
        found, seconds = computed
        if found is None:
            return {"skipped": True}, b""
        save_array(self.folder / f"{spec.row}_{spec.col}.npy", found)
        return {"seconds": seconds, "points": len(found)}, b""

    def _dtype(self, points: PointInput) -> np.dtype[Any]:
        return label_dtype(points, confidence=self.confidence, probabilities=self.probabilities)


def point_input(model: LoadedModel) -> PointInput:
    """What a model takes of points.

    Raises
    ------
    ModelDataError
        It takes none.
    """
    points = model.contract.points
    if points is None:
        raise ModelDataError(
            f"{model.contract.model_name} takes no points; give a model that was trained on them."
        )
    return points


def _softmax(logits: np.ndarray) -> np.ndarray:
    """float32 (N, K): shares that add up to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares
