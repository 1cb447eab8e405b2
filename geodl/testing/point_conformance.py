"""What every registered model of point clouds has to hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geodl.data.prepare import prepare_data
from geodl.testing.point_scene import classified_export, object_export

if TYPE_CHECKING:
    from geodl.testing.conformance import ModelCase
    from geodl.testing.elsewhere import OtherProcess

_EPOCHS = 3
_EXTRA_COLUMNS = (0, 1, 4)


def check_point_model(case: ModelCase, folder: Path, other: OtherProcess) -> None:
    """All rules for one model class of points; trains it once, on a generated town.

    Parameters
    ----------
    case
        The model.
    folder
        Empty; blocks and packages go there.
    other
        Where the package is opened too.
    """
    from geodl.testing.conformance import check_continuing, check_face, check_seed, check_travel

    data = point_data(case, folder)
    model = case.model(data)
    check_face(model)
    check_point_fit(case, model)
    check_point_package(case, model, data, folder / "saved")
    moved = check_travel(case, model, [data.valid_ds[0]["points"]], folder, other)
    check_continuing(case, model, data, moved)
    check_batches(case, model, data)
    check_seed(case, data)
    for extra in _EXTRA_COLUMNS:
        check_columns(case, model, data, 3 + extra)


def point_data(case: ModelCase, folder: Path) -> Any:
    """A few blocks of the kind that the model takes."""
    if case.model_class.kind == "boxes3d":
        path = object_export(folder / "town.pcotd", side=24.0, density=2.0, cars=3, buildings=1)
    else:
        path = classified_export(
            folder / "town.pctd", train=1, side=24.0, density=1.0, cars=2, buildings=1,
            max_points=256,
        )  # fmt: skip
    return prepare_data(
        path,
        dataset_type=case.format_name(),
        batch_size=case.batch_size,
        extra_features=["numberOfReturns"],
        transforms=False,
        working_dir=folder / "work",
    )


def check_point_fit(case: ModelCase, model: Any) -> None:
    """``fit`` lowers the training loss, fills the record, and draws."""
    model.unfreeze()
    model.fit(_EPOCHS, case.rate)
    rows = model.record.rows
    assert len(rows) == _EPOCHS, f"{case.name}.fit recorded {len(rows)} of {_EPOCHS} epochs"
    assert set(model.available_metrics) <= set(rows[0]), f"{case.name} records other metrics"
    first, last = rows[0]["train_loss"], rows[-1]["train_loss"]
    assert last < first, f"{case.name}.fit raised the loss from {first:.4f} to {last:.4f}"
    assert model.plot_losses().axes, f"{case.name} drew an empty figure"
    assert model.results_picture(1).axes, f"{case.name} drew an empty picture of results"
    assert model.show_results(1) is not None, f"{case.name} drew no results"


def check_point_package(case: ModelCase, model: Any, data: Any, folder: Path) -> None:
    """What ``save`` writes gives the same answers, opened in any of its forms."""
    from geodl.testing.conformance import same

    saved = Path(model.save(folder))
    expected = block_answers(model, data)
    for place in (saved, next(saved.glob("*.dlpk")), next(saved.glob("*.emd"))):
        opened = case.model_class.from_model(place)
        same(expected, block_answers(opened, data), f"{case.name} from {place.name}")
        assert opened.contract == model.contract, f"{case.name}: {place} has another contract"
    net, task = pickle.loads(pickle.dumps((model.net, model.task)))
    batch = task.prepare([data.valid_ds[0]["points"]])
    with torch.inference_mode():
        after = list(_tensors(net(batch)))
        before = list(_tensors(model.net(model.task.prepare([data.valid_ds[0]["points"]]))))
    same(before, after, f"{case.name} after pickling")


def check_batches(case: ModelCase, model: Any, data: Any) -> None:
    """A block's answer does not depend on the other blocks of its batch."""
    blocks = [data.valid_ds[i]["points"] for i in range(min(2, len(data.valid_ds)))]
    together = decoded_blocks(model, blocks)
    for i, block in enumerate(blocks):
        alone = decoded_blocks(model, [block])[0]
        for one, other in zip(together[i], alone, strict=True):
            assert one.shape == other.shape, f"{case.name}: a block's answers depend on its batch"
            near = torch.allclose(one, other, atol=1e-4, rtol=1e-4)
            assert near, f"{case.name}: a block's answers depend on its batch"


def check_columns(case: ModelCase, model: Any, data: Any, columns: int) -> None:
    """The network builds for any attributes and learns: one forward and backward."""
    net, task, loaded = case.model_class.build(
        classes=model.contract.classes,
        bands=columns,
        tile_px=1,
        parameters=model.parameters,
        pretrained=False,
        batch_size=case.batch_size,
    )
    where = f"{case.name} with {columns} columns"
    assert not loaded, f"{where}: pretrained=False loaded weights"
    items = []
    for i in range(2):
        item = data.train_ds[i]
        points = item["points"][:, :3]
        more = torch.rand((len(points), columns - 3), generator=torch.Generator().manual_seed(i))
        items.append({**item, "points": torch.cat([points, more], dim=1)})
    net.train()
    loss = task.loss(net, task.collate(items))["loss"]
    loss.backward()
    assert torch.isfinite(loss), f"{where}: the loss is not finite"
    moved = [p for p in net.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved, f"{where}: no parameter has a gradient"


def block_answers(model: Any, data: Any) -> list[Tensor]:
    """What the model says of the first validation block."""
    return decoded_blocks(model, [data.valid_ds[0]["points"]])[0]


def decoded_blocks(model: Any, blocks: list[Tensor]) -> list[list[Tensor]]:
    """Per block its scores, or its boxes, scores and labels."""
    model.net.eval()
    batch = model.task.prepare(blocks)
    with torch.inference_mode():
        if model.task.kind == "points":
            scores = model.task.scores(model.net, batch)
            return [[s[: len(b)]] for s, b in zip(scores, blocks, strict=True)]
        found = model.task.detect(model.net, batch, threshold=0.05, nms_overlap=0.1)
    return [[torch.as_tensor(part) for part in (f.boxes, f.scores, f.labels)] for f in found]


def _tensors(value: Any) -> Any:
    from geodl.testing.conformance import tensors

    return tensors(value)
