import pickle

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import accuracy_score, jaccard_score, precision_recall_fscore_support
from torch import nn
from torch.nn import functional

from geodl.base.errors import OptionError, UnknownOptionError
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.tasks.pixel_metrics import (
    accuracy,
    class_iou,
    confusion,
    mean_iou,
    occurring,
    precision_recall_f1,
)
from geodl.tasks.pixels import PixelTask, dice_loss, focal_loss

CLASSES = ClassTable.from_mapping({3: "roof", 7: "tree"})


class Fixed(nn.Module):
    """Answers with the same logits, whatever comes."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x):
        return self.logits


@pytest.fixture
def logits():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target():
    made = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    made[:, :2] = IGNORE_INDEX
    return made


def loss_of(logits, target, **options):
    batch = {"image": torch.zeros(len(target), 1, 8, 8), "target": target, "name": ["a", "b"]}
    return PixelTask(CLASSES, **options).loss(Fixed(logits), batch)["loss"]


def test_loss_is_cross_entropy_over_the_counted_pixels(logits, target):
    expected = functional.cross_entropy(logits, target, ignore_index=IGNORE_INDEX)
    assert loss_of(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_weigh_the_pixels(logits, target):
    weights = [1.0, 5.0, 0.5]
    expected = functional.cross_entropy(logits, target, torch.tensor(weights))
    assert loss_of(logits, target, class_weights=weights).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_focal_loss_is_its_formula(logits, target):
    p = torch.softmax(logits, 1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    counted = target != IGNORE_INDEX
    expected = (-((1 - p) ** 2) * p.log())[counted].mean()
    assert loss_of(logits, target, focal_loss=True).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_dice_is_zero_for_a_perfect_and_one_for_a_wrong_answer(average):
    target = torch.tensor([[[0, 1], [2, IGNORE_INDEX]]])
    right = functional.one_hot(target.clamp(min=0), 3).movedim(-1, 1) * 200.0
    assert dice_loss(right, target, average).item() == pytest.approx(0, abs=1e-5)
    wrong = right.roll(1, dims=1)
    assert dice_loss(wrong, target, average).item() == pytest.approx(1, abs=1e-5)


def test_dice_micro_and_macro_by_hand():
    # Uniform thirds: micro 2 * (3/3) / (3 + 3); class 0 has 2 pixels, class 1 one.
    target = torch.tensor([[[0, 0, 1]]])
    logits = torch.zeros(1, 3, 1, 3)
    assert dice_loss(logits, target, "micro").item() == pytest.approx(1 - 2 * 1 / 6)
    zero, one = 1 - 2 * (2 / 3) / (1 + 2), 1 - 2 * (1 / 3) / (1 + 1)
    assert dice_loss(logits, target, "macro").item() == pytest.approx((zero + one) / 2)


def test_dice_fraction_mixes_the_losses(logits, target):
    mixed = loss_of(logits, target, dice_loss_fraction=0.25, dice_loss_average="macro")
    expected = 0.75 * loss_of(logits, target) + 0.25 * dice_loss(logits, target, "macro")
    assert mixed.item() == pytest.approx(expected.item(), rel=1e-5)


def test_ignored_classes_add_no_loss_get_no_gradient_and_are_never_predicted(logits, target):
    task = PixelTask(CLASSES, ignore_classes=[0, 3])
    net = Fixed(logits)
    batch = {"image": torch.zeros(2, 1, 8, 8), "target": target, "name": ["a", "b"]}
    task.loss(net, batch)["loss"].backward()
    # Only tree is left, so every counted pixel is certain already.
    assert net.logits.grad.abs().max() == 0
    scores = task.scores(net, batch["image"])
    assert torch.equal(scores[:, 2], torch.ones(2, 8, 8))
    assert all((p == 2).all() for p in task.predict(net, batch["image"]))
    state = task.validate(net, batch)["state"]
    assert state.sum() == (target == 2).sum()


def test_background_takes_part_in_the_loss(logits):
    target = torch.zeros(2, 8, 8, dtype=torch.int64)
    assert loss_of(logits, target) > 0


@pytest.mark.parametrize(
    "options", [{}, {"focal_loss": True}, {"dice_loss_fraction": 1}, {"mixup": True}]
)
def test_a_batch_without_counted_pixels_has_loss_zero(logits, options):
    target = torch.full((2, 8, 8), IGNORE_INDEX)
    assert loss_of(logits, target, **options).item() == 0


def test_mixup_mixes_images_and_losses_alike():
    class Records(nn.Module):
        def forward(self, x):
            self.seen = x
            return torch.zeros(2, 3, 8, 8)

    task, net = PixelTask(CLASSES, mixup=True), Records()
    image = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    batch = {"image": image, "target": torch.zeros(2, 8, 8, dtype=torch.int64), "name": ["a", "b"]}
    seen = []
    with torch.random.fork_rng([]):
        for seed in range(6):
            torch.manual_seed(seed)
            loss = task.loss(net, batch)["loss"].item()
            assert loss == pytest.approx(np.log(3), rel=1e-5)
            seen.append(float(net.seen[0].mean()))
    # Either the image itself (paired with itself), or a share of its neighbour.
    assert any(0 < value < 1 for value in seen)
    assert task.validate(net, batch)["state"].sum() == 128
    assert net.seen is image


def test_scores_are_probabilities(logits):
    scores = PixelTask(CLASSES).scores(Fixed(logits.to(torch.bfloat16)), torch.zeros(2, 1, 8, 8))
    assert scores.dtype == torch.float32
    assert scores.shape == (2, 3, 8, 8)
    assert torch.allclose(scores.sum(1), torch.ones(2, 8, 8))


def test_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 3, 500), rng.integers(0, 4, 500)
    counts = sum(
        confusion(torch.tensor(t), torch.tensor(f), 5).numpy()
        for t, f in zip(np.split(truth, 5), np.split(found, 5), strict=True)
    )
    labels = range(5)
    assert accuracy(counts) == accuracy_score(truth, found)
    assert mean_iou(counts) == pytest.approx(jaccard_score(truth, found, average="macro"))
    iou = jaccard_score(truth, found, labels=labels, average=None, zero_division=0)
    assert class_iou(counts) == pytest.approx(iou)
    expected = precision_recall_fscore_support(truth, found, labels=labels, zero_division=0)[:3]
    for own, theirs in zip(precision_recall_f1(counts), expected, strict=True):
        assert own == pytest.approx(theirs)
    assert occurring(counts).tolist() == [True, True, True, True, False]


def test_pixels_outside_the_mask_do_not_count():
    truth = torch.tensor([0, 1, IGNORE_INDEX])
    assert confusion(truth, torch.tensor([0, 0, 1]), 2).tolist() == [[1, 0], [1, 0]]


def test_no_pixels_score_zero():
    empty = np.zeros((3, 3), np.int64)
    assert accuracy(empty) == mean_iou(empty) == 0


def test_meter_adds_batches(logits, target):
    task = PixelTask(CLASSES)
    batch = {"image": torch.zeros(2, 1, 8, 8), "target": target, "name": ["a", "b"]}
    meter = task.new_meter()
    for _ in range(3):
        meter.update(task.validate(Fixed(logits), batch), batch)
    once = confusion(target, logits.argmax(1), 3)
    assert torch.equal(meter.matrix, 3 * once)
    assert meter.compute() == {
        "accuracy": accuracy(once.numpy()), "mIoU": mean_iou(once.numpy())
    }  # fmt: skip


def test_collate_stacks_images_and_masks():
    items = [
        {"image": torch.full((1, 2, 2), float(i)), "target": torch.full((2, 2), i), "name": str(i)}
        for i in range(3)
    ]
    batch = PixelTask(CLASSES).collate(items)
    assert batch["image"].shape == (3, 1, 2, 2)
    assert batch["target"].shape == (3, 2, 2)
    assert batch["name"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ignore_classes": [4]}, OptionError, r"\[0, 3, 7\]"),
        ({"ignore_classes": 3}, OptionError, "list"),
        ({"ignore_classes": [0, 3, 7]}, OptionError, "at least one"),
        ({"dice_loss_fraction": 1.5}, OptionError, "dice_loss_fraction"),
        ({"dice_loss_average": "mikro"}, OptionError, "'micro'"),
        ({"class_weights": [1, 2]}, OptionError, "expected 3"),
        ({"focal_los": True}, UnknownOptionError, "'focal_loss'"),
    ],
)
def test_wrong_options_are_refused_by_name(options, error, text):
    with pytest.raises(error, match=text):
        PixelTask(CLASSES, **options)


def test_a_pickled_task_gives_the_same_loss(logits, target):
    options = {"class_weights": [1, 2, 3], "ignore_classes": [3], "focal_loss": True}
    task = PixelTask(CLASSES, **options)
    batch = {"image": torch.zeros(2, 1, 8, 8), "target": target, "name": ["a", "b"]}
    again = pickle.loads(pickle.dumps(task))
    assert torch.equal(
        task.loss(Fixed(logits), batch)["loss"], again.loss(Fixed(logits), batch)["loss"]
    )


def test_focal_loss_downweighs_what_is_certain():
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    sure = torch.tensor([4.0, 0.0, 0.0]).view(1, 3, 1, 1)
    plain = functional.cross_entropy(sure, target)
    assert focal_loss(sure, target) < plain / 100


def test_draw_fills_both_axes():
    axes = Figure().subplots(1, 2)
    target = torch.tensor([[0, 1], [2, IGNORE_INDEX]])
    item = {"image": torch.zeros(1, 2, 2), "target": target, "name": "a"}
    PixelTask(CLASSES).draw(*axes, item, np.ones((2, 2), int), np.zeros((2, 2, 3), np.uint8))
    overlay = axes[0].images[1].get_array()
    assert overlay[0, 0, 3] == 0
    assert overlay[1, 1, 3] == 0
    assert overlay[1, 0, 3] > 0
    colour = np.array(CLASSES.entries[0].color) / 255
    assert np.allclose(axes[1].images[1].get_array()[0, 0, :3], colour)


# ---- networks that give more than logits in training


def test_auxiliary_logits_and_points_add_their_own_losses():
    from torch.nn import functional

    from geodl.core.classes import ClassTable
    from geodl.tasks.pixels import AUXILIARY_WEIGHT, PixelTask, target_at

    torch.manual_seed(1)
    task = PixelTask(ClassTable.from_mapping({1: "a", 2: "b"}))
    target = torch.randint(0, 3, (2, 4, 5))
    points = torch.tensor([[[4, 0], [1, 3]], [[0, 2], [2, 2]]])
    at = target_at(target, points)
    assert at[..., 0].tolist() == [
        [target[0, 0, 4], target[0, 3, 1]],
        [target[1, 2, 0], target[1, 2, 2]],
    ]
    answer = {
        "logits": torch.randn(2, 3, 4, 5),
        "auxiliary": torch.randn(2, 3, 4, 5),
        "points": points,
        "point_logits": torch.randn(2, 3, 2),
    }
    batch = {"image": torch.zeros(2, 1, 4, 5), "target": target, "name": ["a", "b"]}
    found = task.loss(lambda x: answer, batch)["loss"]
    expected = (
        functional.cross_entropy(answer["logits"], target)
        + AUXILIARY_WEIGHT * functional.cross_entropy(answer["auxiliary"], target)
        + functional.cross_entropy(answer["point_logits"], at[..., 0])
    )
    assert torch.allclose(found, expected)
