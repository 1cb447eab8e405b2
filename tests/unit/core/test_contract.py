"""Normalisation and the model's contract."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geodl.base.errors import BundleError
from geodl.core.classes import ClassTable
from geodl.core.contract import IMAGENET_MEAN, IMAGENET_STD, ModelContract, Normalization

_TWO = Normalization(
    minimum=(10.0, -5.0), maximum=(110.0, 15.0), scaled_mean=(0.5, 0.25), scaled_std=(0.2, 0.1)
)


def _by_hand(data: np.ndarray, n: Normalization) -> np.ndarray:
    out = np.empty(data.shape)
    for band in range(len(data)):
        scaled = (data[band] - n.minimum[band]) / (n.maximum[band] - n.minimum[band])
        out[band] = (scaled - n.scaled_mean[band]) / n.scaled_std[band]
    return out


@given(hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-1000, 1000, width=32)))
def test_normalisation_is_the_formula_and_its_inverse(data: np.ndarray) -> None:
    normal = _TWO.apply(data)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, _by_hand(data.astype(float), _TWO), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(_TWO.invert(normal), data, rtol=1e-4, atol=1e-2)


def test_eight_bit_colour_is_torchvisions_normalisation() -> None:
    white = np.full((3, 1, 1), 255, np.uint8)
    expected = (1 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(Normalization.imagenet().apply(white)[:, 0, 0], expected, rtol=1e-6)


def test_pixels_outside_the_mask_count_as_raw_zero() -> None:
    data = np.full((2, 2, 2), 50, np.uint16)
    mask = np.array([[True, False], [True, True]])
    normal = _TWO.apply(data, mask)
    zero = _TWO.apply(np.zeros((2, 1, 1), np.uint16))[:, 0, 0]
    np.testing.assert_array_equal(normal[:, 0, 1], zero)
    np.testing.assert_array_equal(normal[:, mask], _TWO.apply(data)[:, mask])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_count_as_raw_zero(value: float) -> None:
    data = np.full((2, 1, 2), 3, np.float32)
    data[1, 0, 1] = value
    zero = _TWO.apply(np.zeros((2, 1, 1), np.float32))[1, 0, 0]
    for mask in (None, np.array([[True, False]])):
        normal = _TWO.apply(data, mask)
        assert np.isfinite(normal).all()
        assert normal[1, 0, 1] == zero


def test_a_nodata_value_beyond_float32_is_no_warning() -> None:
    data = np.full((2, 1, 2), -1.7976931348623157e308)
    zero = _TWO.apply(np.zeros((2, 1, 1), np.float32))[:, 0, 0]
    np.testing.assert_array_equal(_TWO.apply(data)[:, 0, 1], zero)
    np.testing.assert_array_equal(_TWO.apply(data, np.array([[True, False]]))[:, 0, 1], zero)


def test_input_is_not_changed() -> None:
    data = np.full((2, 2, 2), 7, np.float32)
    _TWO.apply(data, np.zeros((2, 2), bool))
    assert (data == 7).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum": (0.0,)}, "different lengths"),
        ({"maximum": (10.0, 15.0)}, "maximum is not above"),
        ({"scaled_std": (0.2, 0.0)}, "deviation"),
        ({"scaled_std": (0.2, -1.0)}, "deviation"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused(
    changes: dict[str, tuple[float, ...]], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        Normalization.from_json(_TWO.to_json() | {k: list(v) for k, v in changes.items()})


def test_normalisation_survives_json_and_pickle() -> None:
    assert Normalization.from_json(json.loads(json.dumps(_TWO.to_json()))) == _TWO
    assert pickle.loads(pickle.dumps(_TWO)) == _TWO
    assert _TWO.bands == 2


def _contract(**changes: object) -> ModelContract:
    values: dict[str, object] = {
        "model_name": "UnetClassifier",
        "kind": "pixels",
        "classes": ClassTable.from_mapping({1: "tree"}),
        "extract_bands": (3, 0),
        "band_names": (),
        "source_bands": 4,
        "tile_px": 64,
        "normalization": _TWO,
        "cell_size": (0.5, 1.0),
    }
    return ModelContract(**(values | changes))  # type: ignore[arg-type]


def test_contract_says_itself_in_json() -> None:
    said = json.loads(json.dumps(_contract().describe()))
    assert said["extract_bands"] == [3, 0]
    assert said["cell_size"] == [0.5, 1.0]
    assert said["classes"][0]["Name"] == "tree"
    assert _contract(cell_size=None).describe()["cell_size"] is None


def test_contract_needs_statistics_for_each_band_it_takes() -> None:
    with pytest.raises(BundleError, match="takes 3 bands but has statistics for 2"):
        _contract(extract_bands=(0, 1, 2))
