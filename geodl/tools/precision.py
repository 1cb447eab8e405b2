"""Whether a network may run in half precision: what it answers must stay what it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from geodl.base.errors import OptionError
from geodl.bundle import load_model
from geodl.core.blocks import RasterBlock
from geodl.core.plan import BlockSpec
from geodl.infer.instances import FoundInstances
from geodl.infer.objects import Found
from geodl.infer.pixels import PixelOptions
from geodl.ops.boxes import iou_matrix
from geodl.tools.job import Job
from geodl.tools.preview import spread

logger = logging.getLogger(__name__)

# Tiles that are run twice, and how many are looked at for data.
_TILES, _LOOKS = 4, 64
# Share of pixels with the same class, or of sure objects that are found again.
_LEAST = {"pixels": 0.99, "objects": 0.95}
# Scores that differ by less count as the same; objects so near the threshold may come and go.
_SAME_SCORE, _SURE = 0.02, 0.05
_SAME_BOX = 0.5


def check_precision(job: Job, client: Any) -> None:
    """Compare the network in bfloat16 with itself in float32 on a few tiles of the raster.

    Nothing is done for float32. The tiles do not depend on the blocks, so that a run that goes on
    is judged as it was. With a client the tiles are run on this machine's CPU.

    Raises
    ------
    OptionError
        They agree too little, or the network has a precision of its own.
    """
    if job.options.run.precision == "float32":
        return
    device = job.device if client is None else "cpu"
    net = load_model(job.model, device).net
    if next(net.parameters(), None) is None:
        raise OptionError(
            f"precision={job.options.run.precision!r}: {job.model.path} is not run by torch and "
            "keeps its own precision; leave it out"
        )
    kind = "pixels" if isinstance(job.options.run, PixelOptions) else "objects"
    share = _agreement(job, device)
    if share < _LEAST[kind]:
        raise OptionError(
            f"precision={job.options.run.precision!r}: on {_TILES} tiles of {job.source.name} only "
            f"{share:.1%} of the {kind} are those of float32, less than {_LEAST[kind]:.0%}; leave "
            "it out"
        )
    logger.info("%s agrees with float32 on %.1f %%", job.options.run.precision, 100 * share)


def _agreement(job: Job, device: str) -> float:
    """Share 0..1 of what both precisions answer alike; 1 where there is nothing."""
    stride = job.plan.stride_px
    tiles = replace(job, plan=job.plan.with_layout(stride, stride))
    half: Any = replace(tiles.task(), device=device, batch=1)
    full = replace(half, options=replace(half.options, precision="float32"))
    alike = total = 0
    for spec, block in _with_data(half, tiles):
        answers = [task.compute(spec, block)[0] for task in (full, half)]
        if isinstance(job.options.run, PixelOptions):
            valid = half.valid(spec, block)
            answers = [answer[:, valid] for answer in answers]
        found, of = _alike(answers, job.options.run)
        alike, total = alike + found, total + of
    return alike / total if total else 1.0


def _with_data(task: Any, job: Job) -> list[tuple[BlockSpec, RasterBlock]]:
    found = []
    for spec in spread(job, _LOOKS):
        block = task.read(spec)
        if task.valid(spec, block).any():
            found.append((spec, block))
        if len(found) == _TILES:
            break
    return found


def _alike(answers: Sequence[Any], options: Any) -> tuple[int, int]:
    """How much of two answers is the same, and of how much."""
    if isinstance(options, PixelOptions):
        one, other = answers
        same = abs(one - other) <= _SAME_SCORE if options.output == "scores" else one == other
        return int(same.sum()), one.size
    sides = [_boxes(answer) for answer in answers]
    sure = options.threshold + _SURE
    found = total = 0
    for (boxes, scores, labels), (others, _, other_labels) in (sides, sides[::-1]):
        same = iou_matrix(boxes, others) >= _SAME_BOX
        again = (same & (labels[:, None] == other_labels[None])).any(axis=1)
        found, total = found + int(again[scores >= sure].sum()), total + int((scores >= sure).sum())
    return found, total


def _boxes(answer: Found | FoundInstances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4) px, scores (N,) and labels (N,); of instances the bounds of the outlines."""
    if isinstance(answer, FoundInstances):
        return shapely.bounds(answer.outlines).reshape(-1, 4), answer.scores, answer.labels
    return answer.whole.boxes, answer.whole.scores, answer.whole.labels
