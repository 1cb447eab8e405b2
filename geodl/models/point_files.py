"""Classes and boxes for blocks of points in HDF5 files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geodl.base.errors import FormatError, ModelDataError, SourceNotFoundError
from geodl.base.options import as_float
from geodl.base.packages import require
from geodl.core.contract import ModelContract
from geodl.core.oriented import OrientedBoxes
from geodl.formats.hdf5 import open_h5, rows
from geodl.formats.pctd import BlockTable, check_xyz, read_table
from geodl.formats.point_blocks import STATISTICS, part, read_statistics
from geodl.io.cloud import clouds_in
from geodl.tasks.pixel_metrics import accuracy, mean_iou, precision_recall_f1
from geodl.train.device import net_device, to_device

if TYPE_CHECKING:
    from geodl.models.base import TorchModel
    from geodl.models.mm_detection_3d import MMDetection3D
    from geodl.models.point_classifier import PointClassifier

_RESULTS = "results"
LAS_OPTIONS = (
    "tile_size", "buffer", "classes", "confidence", "probabilities", "client", "progress",
    "overwrite",
)  # fmt: skip
"""Arguments of ``classify_points`` that ``predict_las`` hands on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFolder:
    """Blocks of one folder, whose points need no class.

    Parameters
    ----------
    table
        Where they lie.
    scale
        Units of the CRS per unit of the stored coordinates.
    """

    folder: Path
    table: BlockTable
    scale: float

    def read(self, tile: np.ndarray, contract: ModelContract) -> np.ndarray:
        """float32 (N, 3 + F) of a block, as the model takes it.

        Raises
        ------
        FormatError
            Rows that are missing or not finite.
        ModelDataError
            An attribute that the file lacks.
        """
        spec = contract.points
        number, start, count = tile[:3].tolist()
        path = self.table.files[number]
        if spec is None:
            raise ModelDataError(f"{contract.model_name} is no model of points.")
        with open_h5(path) as file:
            missing = [f.name for f in spec.features if f.name not in file]
            if missing:
                raise ModelDataError(
                    f"{path} lacks {missing[0]!r}, which {contract.model_name} takes; export the "
                    "points with this attribute."
                )
            xyz = rows(file, "xyz", path, start, count)
            values = [f.scaled(rows(file, f.name, path, start, count)) for f in spec.features]
        check_xyz(xyz, f"{path}, rows {start} to {start + count}", bounded=False)
        own = xyz.astype(np.float64) * (self.scale / spec.scale)
        return np.concatenate([own.astype(np.float32), *values], axis=1)


def open_blocks(path: Path, contract: ModelContract, *, objects: bool) -> BlockFolder:
    """The blocks of a folder for prediction.

    Raises
    ------
    SourceNotFoundError, FormatError
        No folder, or files of an export that are missing or broken.
    ModelDataError
        Blocks of another size than the model was trained on.
    """
    if not path.is_dir():
        raise SourceNotFoundError(f"{path} is no folder; give one with ListTable.h5 and blocks.")
    where = path / STATISTICS
    sets = [name for name in ("train", "val") if (path / name / STATISTICS).is_file()]
    if sets and not where.exists():
        raise FormatError(
            f"{path} is an export of the sets {' and '.join(sets)}; give {path / sets[-1]}, for "
            "example."
        )
    parameters = part(read_statistics(where), "parameters", where)
    size = as_float(parameters.get("tileSize"), f"{where}: tileSize", minimum=1e-9)
    spec = contract.points
    if spec is None or not np.isclose(size, spec.block_size):
        own = "none" if spec is None else f"{spec.block_size:g}"
        raise ModelDataError(
            f"{path} has blocks of {size:g} units, the model was trained on {own}; export the "
            "points with the model's block size."
        )
    scale = size / 2
    if objects:
        scale = as_float(parameters.get("scaleFactor"), f"{where}: scaleFactor", minimum=1e-12)
    table = read_table(path, columns=3, masks="ObjectMasks" if objects else "Masks")
    return BlockFolder(folder=path, table=table, scale=scale)


def predicted(
    model: TorchModel, blocks: BlockFolder, tiles: np.ndarray, batch_size: int
) -> Iterator[tuple[list[np.ndarray], dict[str, Any]]]:
    """Batches of blocks: their rows of ``tiles``, and the batch on the network's device."""
    device = net_device(model.net)
    model.net.eval()
    for first in range(0, len(tiles), batch_size):
        chosen = list(tiles[first : first + batch_size])
        tables = [blocks.read(tile, model.contract) for tile in chosen]
        yield chosen, to_device(model.task.prepare(tables), device)  # type: ignore[attr-defined]


def classify_h5(model: PointClassifier, path: Path, output: Path | None, batch_size: int) -> Path:
    """See :meth:`geodl.models.point_classifier.PointClassifier.predict_h5`."""
    h5py = require("h5py", "points")
    blocks = open_blocks(path, model.contract, objects=False)
    output = output or path / _RESULTS
    codes = np.array(model.task.codes, np.int64)
    label = np.int8 if codes.max() <= np.iinfo(np.int8).max else np.int16
    for number, file in enumerate(blocks.table.files):
        tiles = blocks.table.tiles[blocks.table.tiles[:, 0] == number]
        target = result_file(output, blocks.folder, file)
        with open_h5(file) as source:
            total = int(source["xyz"].shape[0])
        with h5py.File(target, "w") as results:
            labels = results.create_dataset("label_seg", (total,), label, fillvalue=-1)
            trust = results.create_dataset("confidence", (total,), np.float32)
            each = results.create_dataset(
                "per_class_confidence", (total + 1, len(codes)), np.float32
            )
            each[0] = codes
            for chosen, batch in predicted(model, blocks, tiles, batch_size):
                with torch.inference_mode():
                    scores = model.task.scores(model.net, batch)
                    shares = torch.softmax(scores, dim=2).cpu().numpy()
                for (_, start, count), found in zip(_places(chosen), shares, strict=True):
                    own = found[:count]
                    labels[start : start + count] = codes[own.argmax(axis=1)].astype(label)
                    trust[start : start + count] = own.max(axis=1)
                    each[start + 1 : start + 1 + count] = own
    return output


def detect_h5(
    model: MMDetection3D,
    path: Path,
    output: Path | None,
    batch_size: int,
    *,
    threshold: float,
    nms_overlap: float,
) -> Path:
    """See :meth:`geodl.models.mm_detection_3d.MMDetection3D.predict_h5`."""
    h5py = require("h5py", "points")
    blocks = open_blocks(path, model.contract, objects=True)
    output = output or path / _RESULTS
    values = model.contract.classes.value_of_index()
    for number, file in enumerate(blocks.table.files):
        rows = np.flatnonzero(blocks.table.tiles[:, 0] == number)
        found = []
        for _, batch in predicted(model, blocks, blocks.table.tiles[rows], batch_size):
            with torch.inference_mode():
                found += model.task.detect(
                    model.net, batch, threshold=threshold, nms_overlap=nms_overlap
                )
        counts = np.array([len(part) for part in found], np.int64)
        empty = OrientedBoxes.none()
        boxes = np.concatenate([empty.boxes, *(part.boxes for part in found)])
        labels = np.concatenate([empty.labels, *(part.labels for part in found)])
        scores = np.concatenate([empty.scores, *(part.scores for part in found)])
        with h5py.File(result_file(output, blocks.folder, file), "w") as results:
            results["orientedBoundingBox"] = eight_numbers(boxes, blocks.scale)
            results["objectCode"] = values[labels]
            results["confidence"] = scores
            results["Tiles"] = np.column_stack([rows, np.cumsum(counts) - counts, counts])
    return output


def eight_numbers(boxes: np.ndarray, scale: float) -> np.ndarray:
    """float64 (M, 8) boxes as exports hold them, of (M, 7) in units of the CRS."""
    x, y, z, length, width, height, yaw = boxes.T
    lengths = np.stack([length / 2, width / 2, z, z + height], axis=1) / scale
    turn = np.stack([x / scale, y / scale, np.cos(yaw), np.sin(yaw)], axis=1)
    return np.concatenate([turn, lengths], axis=1)


def classify_las(
    model: PointClassifier,
    path: Path,
    output: Path | None,
    print_metrics: bool,
    options: Mapping[str, Any],
) -> Path:
    """See :meth:`geodl.models.point_classifier.PointClassifier.predict_las`."""
    from geodl.base.tools import TOOLS

    path = path.expanduser()
    files = clouds_in(path, below=False) if path.is_dir() else [path]
    if output is None:
        folder = path if path.is_dir() else path.parent
        output = folder / _RESULTS if len(files) > 1 else folder / _RESULTS / files[0].name
        output.parent.mkdir(parents=True, exist_ok=True)
    result = TOOLS["classify_points"](files, model, output, **options)
    if print_metrics:
        print(_metrics_text(model, files, result))  # noqa: T201  what the argument asks for
    return Path(result.attrs["path"])


def _metrics_text(model: PointClassifier, source: Any, result: Any) -> str:
    """A table of precision, recall and F1 of the codes that the model knows."""
    from geodl.io.points import open_dataset

    codes = np.array(model.task.codes, np.int64)
    counts = np.zeros((len(codes), len(codes)), np.int64)
    truth = open_dataset(source)["classification"].data
    found = result["classification"].data.rechunk(truth.chunks)
    for one, other in zip(truth.blocks, found.blocks, strict=True):
        pairs = np.stack([np.asarray(one), np.asarray(other)]).astype(np.int64)
        known = np.isin(pairs, codes).all(axis=0)
        places = np.searchsorted(codes, pairs[:, known])
        flat = np.bincount(places[0] * len(codes) + places[1], minlength=len(codes) ** 2)
        counts += flat.reshape(len(codes), len(codes))
    rows = np.stack(precision_recall_f1(counts), axis=1)
    lines = [f"{'class':<24}{'precision':>10}{'recall':>10}{'f1':>10}"]
    lines += [
        f"{name:<24}" + "".join(f"{value:>10.4f}" for value in row)
        for name, row in zip(model.code_names(), rows, strict=True)
    ]
    lines += [f"accuracy {accuracy(counts):.4f}, mean IoU {mean_iou(counts):.4f}"]
    other = truth.size - int(counts.sum())
    if other:
        # Of classes that were remapped or sent to the background, for example.
        lines.append(f"{other} of {truth.size} points have a class that the model does not give")
    return "\n".join(lines)


def _places(tiles: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
    return [(int(t[0]), int(t[1]), int(t[2])) for t in tiles]


def result_file(output: Path, folder: Path, file: Path) -> Path:
    """Where the results of a block file go; its folder exists."""
    relative = Path(os.path.relpath(file, folder))
    if relative.parts and relative.parts[0] == "..":
        raise FormatError(f"{file} lies outside {folder}.")
    target = output / relative.with_name(f"{relative.stem}_pred.h5")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
