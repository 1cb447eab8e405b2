"""What every registered model has to hold; for us and for authors of plug-ins.

Each check raises ``AssertionError`` and says which rule was broken. A plug-in's own tests call
them with its class:

    from geodl.testing.conformance import ModelCase, check_model
    check_model(ModelCase(MyModel, {"backbone": "resnet18"}), tmp_path)
"""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from geodl.base.errors import BundleError
from geodl.bundle.read import read_bundle
from geodl.data.prepare import prepare_data
from geodl.infer.options import ARGUMENTS
from geodl.testing.chips import make_chips
from geodl.testing.datasets import change_folder, label_folder
from geodl.testing.elsewhere import OtherProcess, model_answers

BAND_COUNTS = (1, 4, 13)
_EPOCHS = 4
# Mean difference of scores; bfloat16 has three decimal digits.
_HALF = 0.05


@dataclass(frozen=True, kw_only=True)
class ModelCase:
    """A model class and what makes a tiny one of it.

    Parameters
    ----------
    model_class
        With the documented constructor: ``model_class(data, **arguments)``.
    arguments
        Small enough that a few epochs take a second.
    dataset_type
        The chip format to train on; None takes the first of ``supported_datasets``.
    chip_px, batch_size, rate
        Of the training.
    """

    model_class: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dataset_type: str | None = None
    chip_px: int = 64
    batch_size: int = 4
    rate: float = 2e-3

    @property
    def name(self) -> str:
        return str(self.model_class.__name__)

    def format_name(self) -> str:
        return self.dataset_type or self.model_class.dataset_types[0]

    @property
    def images(self) -> int:
        """Images of a sample; the network takes their bands in one stack."""
        return int(getattr(self.model_class, "images", 1))

    def chips(self, folder: Path) -> Path:
        name = self.format_name()
        if name == "ChangeDetection":
            side = (self.chip_px, self.chip_px)
            return change_folder(folder / "chips", chips=9, size=side)
        if name in ("Labeled_Tiles", "MultiLabeled_Tiles"):
            side = (self.chip_px, self.chip_px)
            return label_folder(folder / "chips", size=side, several=name != "Labeled_Tiles")
        return make_chips(folder, name, chip_px=self.chip_px)

    def data(self, chips: Path, working_dir: Path) -> Any:
        return prepare_data(
            chips,
            chip_size=self.chip_px,
            batch_size=self.batch_size,
            transforms=False,
            val_split_pct=0.2,
            working_dir=working_dir,
        )

    def model(self, data: Any) -> Any:
        return self.model_class(data, **self.arguments)


def check_model(case: ModelCase, folder: Path, other: OtherProcess | None = None) -> None:
    """All rules for one model class; trains it once, on chips of 3 bands.

    Parameters
    ----------
    case
        The model.
    folder
        Empty; chips and packages go there.
    other
        A process that opens the package too; None starts one.
    """
    if other is None:
        with OtherProcess() as other:
            return check_model(case, folder, other)
    if case.model_class.kind in ("points", "boxes3d"):
        from geodl.testing.point_conformance import check_point_model

        return check_point_model(case, folder, other)
    data = case.data(case.chips(folder), folder / "work")
    model = case.model(data)
    check_face(model)
    check_fit(case, model, data)
    check_package(case, model, folder / "saved")
    moved = check_travel(case, model, [_own_batch(case, model)], folder, other)
    check_continuing(case, model, data, moved)
    check_pickle(case, model)
    if model.task.kind in ARGUMENTS:
        check_half(case, model)
    check_seed(case, data)
    for bands in BAND_COUNTS:
        check_bands(case, model, case.images * bands, case.chip_px)
    check_bands(case, model, case.images * 3, case.chip_px + 13)
    return None


def check_face(model: Any) -> None:
    """The documented lists are there and name what the model really takes."""
    name = type(model).__name__
    assert model.supported_datasets, f"{name} supports no dataset type"
    assert {"train_loss", "valid_loss"} < set(model.available_metrics), f"{name} has no metrics"
    assert repr(model), f"{name} has no repr"


def check_fit(case: ModelCase, model: Any, data: Any) -> None:
    """``fit`` lowers the training loss, fills the record, and draws."""
    model.unfreeze()
    model.fit(_EPOCHS, case.rate)
    rows = model.record.rows
    assert len(rows) == _EPOCHS, f"{case.name}.fit recorded {len(rows)} of {_EPOCHS} epochs"
    assert set(model.available_metrics) <= set(rows[0]), f"{case.name} records other metrics"
    first, last = rows[0]["train_loss"], rows[-1]["train_loss"]
    assert last < first, f"{case.name}.fit raised the loss from {first:.4f} to {last:.4f}"
    for figure in (model.plot_losses(), model.show_results(rows=1)):
        assert figure.axes, f"{case.name} drew an empty figure"
    assert len(data.train_ds) > 0


def check_package(case: ModelCase, model: Any, folder: Path) -> None:
    """What ``save`` writes gives the same answers, opened in any of its forms."""
    saved = Path(model.save(folder))
    x = sample_batch(model, case.images * 3, case.chip_px)
    expected = answers(model.net, x)
    package = next(saved.glob("*.dlpk"))
    definition = next(saved.glob("*.emd"))
    for place in (saved, package, definition):
        opened = case.model_class.from_model(place)
        where = f"{case.name} from {place.suffix or 'the folder'}"
        # A package has no memory layout, and another layout adds up in another order.
        same(expected, answers(opened.net, x), where, tolerance=1e-4)
        assert opened.contract == model.contract, f"{case.name}: {place} has another contract"


def _own_batch(case: ModelCase, model: Any) -> Tensor:
    return sample_batch(model, case.images * 3, case.chip_px)


def check_travel(
    case: ModelCase, model: Any, inputs: Sequence[Tensor], folder: Path, other: OtherProcess
) -> Path:
    """A package that was moved predicts the same in another process, without data.

    Parameters
    ----------
    inputs
        Of :func:`~geodl.testing.elsewhere.model_answers`.
    folder
        Holds the package as ``saved``.

    Returns
    -------
    Where the package lies now.
    """
    moved = folder / "another place" / "model"
    moved.parent.mkdir()
    shutil.move(folder / "saved", moved)
    # A package has no memory layout, and another layout adds up in another order.
    plain = copy.copy(model)
    plain._net = copy.deepcopy(model.net).to(memory_format=torch.contiguous_format)
    expected = model_answers(plain, inputs)
    found = other.answers(case.model_class, moved, inputs, folder)
    same(expected, found, f"{case.name} in another process", tolerance=1e-6)
    return moved


def check_continuing(case: ModelCase, model: Any, data: Any, package: Path) -> None:
    """Training goes on from a package: by ``from_model``, ``load`` and ``pretrained_path``."""
    saved = read_bundle(package).trained_weights()
    again = case.model_class.from_model(package, data)
    _same_weights(again, saved, f"{case.name}.from_model with data")
    again.unfreeze()
    again.fit(1, case.rate)
    assert len(again.record.rows) == 1, f"{case.name} does not train on from a package"
    changed = [k for k, v in again.net.state_dict().items() if not torch.equal(v.cpu(), saved[k])]
    assert changed, f"{case.name}: training on from a package changed no weight"
    again.load(package)
    _same_weights(again, saved, f"{case.name}.load")
    started = case.model_class(data, pretrained_path=package, **case.arguments)
    _same_weights(started, saved, f"{case.name} with pretrained_path")
    lost = _without_one(package, package.parent / "incomplete", saved)
    refused = ""
    try:
        again.load(lost)
    except BundleError as error:
        refused = str(error)
    assert "lack" in refused, f"{case.name}.load does not say that weights are missing: {refused}"
    again.load(lost, strict=False)
    _same_weights(again, saved, f"{case.name}.load(strict=False)")


def _without_one(package: Path, folder: Path, saved: Mapping[str, Tensor]) -> Path:
    """A copy of a package without its last tensor of weights."""
    bundle = read_bundle(package)
    shutil.copytree(package, folder, ignore=shutil.ignore_patterns("*.dlpk", "*.safetensors"))
    last = max(i for i, value in enumerate(saved.values()) if value.ndim > 0)
    kept = {name: value for i, (name, value) in enumerate(saved.items()) if i != last}
    content = safetensors.torch.save(kept)
    name = str(bundle.weights_name)
    (folder / name).write_bytes(content)
    emd = dict(bundle.emd)
    sha = {name: hashlib.sha256(content).hexdigest()}
    emd["Geodl"] = {**emd["Geodl"], "weights_sha256": sha}
    next(folder.glob("*.emd")).write_text(json.dumps(emd), encoding="utf-8")
    return folder


def _same_weights(model: Any, saved: Mapping[str, Tensor], where: str) -> None:
    own = model.net.state_dict()
    assert set(own) == set(saved), f"{where}: other weights than those that were saved"
    for name, value in own.items():
        assert torch.equal(value.cpu(), saved[name]), f"{where}: {name} differs from what was saved"


def check_pickle(case: ModelCase, model: Any) -> None:
    """Network and task survive pickling, so that workers may get them."""
    x = sample_batch(model, case.images * 3, case.chip_px)
    net, task = pickle.loads(pickle.dumps((model.net, model.task)))
    same(answers(model.net, x), answers(net, x), f"{case.name} after pickling")
    assert task.classes == model.task.classes, f"{case.name}: the task lost its classes"


def check_half(case: ModelCase, model: Any) -> None:
    """Tools may run the network in bfloat16: the scores stay nearly what they were."""
    net, task = model.net.eval(), model.task
    x = sample_batch(model, case.images * 3, case.chip_px)
    found = []
    for half in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            if task.kind == "pixels":
                found.append(task.scores(net, x).float())
            else:
                seen = task.detect(net, x, threshold=0.01, nms_overlap=0.5)
                best = max((float(one.scores.max(initial=0)) for one in seen), default=0.0)
                found.append(torch.tensor(best))
    apart = float((found[0] - found[1]).abs().mean())
    assert apart < _HALF, f"{case.name}: scores in bfloat16 are {apart:.3f} off"


def check_seed(case: ModelCase, data: Any) -> None:
    """The same data and seed give the same weights."""
    weights = []
    for _ in range(2):
        model = case.model(data)
        model.fit(1, case.rate)
        weights.append(model.net.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), f"{case.name}: {key} differs on a second run"


def check_bands(case: ModelCase, model: Any, bands: int, tile_px: int) -> None:
    """The network builds for any bands and tile size, and learns: one forward and backward."""
    net, task, loaded = case.model_class.build(
        classes=model.contract.classes,
        bands=bands,
        tile_px=tile_px,
        parameters=model.parameters,
        pretrained=False,
        batch_size=case.batch_size,
    )
    where = f"{case.name} with {bands} bands of {tile_px} px"
    assert not loaded, f"{where}: pretrained=False loaded weights"
    batch = sample_targets(task, bands, tile_px)
    net.train()
    losses = task.loss(net, batch)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"]), f"{where}: the loss is not finite"
    moved = [p for p in net.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved, f"{where}: no parameter has a gradient"
    for output in answers(net, batch["image"]):
        assert torch.isfinite(output).all(), f"{where}: an output is not finite"


def sample_batch(model: Any, bands: int, side: int) -> Tensor:
    """float32 (2, bands, side, side), the same each time."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn((2, bands, side, side), generator=generator)


def sample_targets(task: Any, bands: int, side: int) -> dict[str, Any]:
    """A collated batch of two items of the task's kind, with every class in each."""
    count = len(task.classes)
    generator = torch.Generator().manual_seed(4)
    items = []
    for number in range(2):
        image = torch.randn((bands, side, side), generator=generator)
        target: Any
        if task.kind == "pixels":
            target = torch.arange(side * side).reshape(side, side) // 7 % (count + 1)
        elif task.kind == "tiles":
            target = torch.tensor(number % count)
        else:
            corner = torch.arange(count, dtype=torch.float32)[:, None] * 4 + 3
            boxes = torch.cat([corner, corner, corner + 16, corner + 20], dim=1)
            target = {"boxes": boxes, "labels": torch.arange(1, count + 1)}
            if task.kind == "instances":
                target["masks"] = _filled(boxes, side)
        items.append({"image": image, "name": str(number), "target": target})
    return dict(task.collate(items))


def _filled(boxes: Tensor, side: int) -> Tensor:
    """bool (N, side, side): the pixels of boxes."""
    place = torch.arange(side) + 0.5
    inside = (place > boxes[:, None, :2].mT) & (place < boxes[:, None, 2:].mT)
    return inside[:, 1, :, None] & inside[:, 0, None]


def answers(net: Any, x: Tensor) -> list[Tensor]:
    """All tensors that a network gives in eval mode."""
    net.eval()
    with torch.inference_mode():
        found = [part.clone() for part in tensors(net(x))]
    assert found, f"{type(net).__name__} gives no tensors"
    return found


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples, dictionaries and attributes, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
    elif hasattr(value, "__dict__"):
        yield from tensors(vars(value))


def same(expected: list[Tensor], got: list[Tensor], where: str, tolerance: float = 0.0) -> None:
    """The same tensors, bit for bit or within a share of their largest value."""
    assert len(expected) == len(got), f"{where}: {len(got)} outputs instead of {len(expected)}"
    for one, other in zip(expected, got, strict=True):
        assert one.shape == other.shape, f"{where}: shape {other.shape} instead of {one.shape}"
        if one.numel() == 0:
            continue
        difference = float((one - other).abs().max())
        limit = tolerance * max(1.0, float(one.abs().max()))
        assert difference <= limit, f"{where}: answers differ by up to {difference:g}"
