"""Turning and turning back is nothing, for images and for boxes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from geodl.infer.augment import merged_scores, symmetries, turn, turn_back, turn_boxes_back

ALL = list(itertools.product([False, True], repeat=3))


@pytest.mark.parametrize("symmetry", ALL)
def test_images_and_boxes_turn_together(symmetry: tuple[bool, bool, bool]) -> None:
    image = torch.zeros(1, 1, 12, 20)
    image[0, 0, 2:5, 7:15] = 1
    turned = turn(image, symmetry)
    rows, cols = torch.nonzero(turned[0, 0], as_tuple=True)
    found = np.array([[cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]], dtype=np.float64)
    np.testing.assert_array_equal(turn_boxes_back(found, symmetry, 12, 20), [[7, 2, 15, 5]])
    assert torch.equal(turn_back(turned, symmetry), image)


def test_there_are_eight_symmetries_of_a_map_and_two_of_a_picture() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert len({tuple(turn(x, s).flatten().tolist()) for s in symmetries("MAP_SPACE")}) == 8
    assert len(symmetries("PIXEL_SPACE")) == 2


@pytest.mark.parametrize(
    ("policy", "reduce"), [("mean", np.mean), ("max", np.max), ("min", np.min)]
)
def test_scores_are_merged_by_policy(policy: str, reduce: object) -> None:
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ramp = torch.arange(4.0)

    def scores(t: torch.Tensor) -> torch.Tensor:
        return t * ramp

    every = [turn_back(scores(turn(x, s)), s).numpy() for s in symmetries("MAP_SPACE")]
    merged = merged_scores(scores, x, symmetries("MAP_SPACE"), policy)  # type: ignore[arg-type]
    np.testing.assert_allclose(merged.numpy(), reduce(every, axis=0), rtol=1e-6)  # type: ignore[operator]
