import json

import numpy as np
import pytest

from geodl.base.errors import DataError
from geodl.data.normalize import (
    CACHE_NAME,
    BandStatistics,
    cached_statistics,
    compute_statistics,
    fingerprint,
    is_plain_rgb,
    merge_statistics,
    sample_share,
)

RGB = ("Red", "Green", "Blue")


def statistics(low=(0.0,), high=(10.0,), mean=(4.0,), std=(2.0,)):
    return BandStatistics(minimum=low, maximum=high, mean=mean, std=std)


def test_scaled_deviation_is_correct_where_the_minimum_is_not_zero():
    found = statistics(low=(100.0,), high=(300.0,), mean=(150.0,), std=(20.0,)).normalization()
    assert found.scaled_mean == (0.25,)
    assert found.scaled_std == (0.1,)


def test_normalised_pixels_have_mean_0_and_deviation_1():
    rng = np.random.default_rng(0)
    data = rng.normal(500, 40, (4, 64, 64)).astype(np.float32)
    found = compute_statistics([(data, None)], 4, "x").normalization().apply(data)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=(1, 2)), 1, atol=1e-3)


def test_a_constant_band_keeps_its_place_with_its_maximum_raised_by_one():
    found = statistics((7.0, 0.0), (7.0, 10.0), (7.0, 5.0), (0.0, 1.0)).normalization()
    assert found.maximum == (8.0, 10.0)
    assert found.scaled_mean == (0.0, 0.5)
    assert found.scaled_std == (1.0, 0.1)


@pytest.mark.parametrize(
    ("bands", "dtype", "names", "plain"),
    [
        (3, "uint8", RGB, True),
        (3, "uint8", (), True),
        (3, "uint8", ("Band_1", "Band_2", "Band_3"), True),
        (3, "uint8", ("1", "2", "3"), True),
        (3, "uint8", ("NearInfrared", "Red", "Green"), False),
        (3, "uint8", ("Blue", "Green", "Red"), False),
        (3, "uint16", RGB, False),
        (4, "uint8", (*RGB, "alpha"), False),
        (1, "uint8", (), False),
    ],
)
def test_imagenet_statistics_are_for_plain_8_bit_rgb_only(bands, dtype, names, plain):
    assert is_plain_rgb(bands, dtype, names, None) is plain


def test_statistics_that_leave_8_bits_are_no_plain_rgb():
    wide = statistics((0.0,) * 3, (255.0, 255.0, 300.0), (4.0,) * 3, (2.0,) * 3)
    assert not is_plain_rgb(3, "uint8", RGB, wide)


def test_statistics_of_chips_equal_those_of_all_pixels_without_masked_and_nan_ones():
    rng = np.random.default_rng(1)
    chips = [rng.normal(100 * i, 1 + i, (2, 16, 16)).astype(np.float32) for i in range(4)]
    masks = [rng.random((16, 16)) < 0.7 for _ in chips]
    chips[1][0, :4] = np.nan
    chips[2][1, 3, 3] = np.inf
    masks[3][:] = False
    found = compute_statistics(zip(chips, masks, strict=True), 2, "x")
    for band in range(2):
        pixels = np.concatenate([c[band][m] for c, m in zip(chips, masks, strict=True)])
        pixels = pixels[np.isfinite(pixels)].astype(np.float64)
        assert found.minimum[band] == pixels.min()
        assert found.maximum[band] == pixels.max()
        assert found.mean[band] == pytest.approx(pixels.mean(), rel=1e-9)
        assert found.std[band] == pytest.approx(pixels.std(), rel=1e-9)


def test_a_band_without_data_does_not_spoil_the_others():
    data = np.stack([np.full((4, 4), np.nan), np.arange(16.0).reshape(4, 4)])
    found = compute_statistics([(data, None)], 2, "x")
    assert found.minimum == (0.0, 0.0)
    assert found.maximum == (0.0, 15.0)
    assert found.normalization().maximum == (1.0, 15.0)


def test_chips_without_a_valid_pixel_are_refused_by_name():
    empty = (np.zeros((1, 4, 4)), np.zeros((4, 4), bool))
    with pytest.raises(DataError, match="my_folder"):
        compute_statistics([empty], 1, "my_folder")


def test_merged_statistics_hold_the_term_between_the_means():
    rng = np.random.default_rng(2)
    sets = [rng.normal(0, 1, 500), rng.normal(9, 3, 1500)]
    parts = [(statistics((v.min(),), (v.max(),), (v.mean(),), (v.std(),)), len(v)) for v in sets]
    both = np.concatenate(sets)
    for order in (parts, parts[::-1]):
        found = merge_statistics(order)
        assert found.mean[0] == pytest.approx(both.mean())
        assert found.std[0] == pytest.approx(both.std())
        assert (found.minimum[0], found.maximum[0]) == (both.min(), both.max())


def test_few_chips_are_all_read_and_many_by_share():
    few = [str(i) for i in range(299)]
    many = [str(i) for i in range(2000)]
    assert sample_share(few, 0.3, 0) == list(range(299))
    chosen = sample_share(many, 0.3, 0)
    assert len(set(chosen)) == 600
    assert chosen == sample_share(many, 0.3, 0)
    assert chosen != sample_share(many, 0.3, 1)
    assert len(sample_share(many, 0.0, 0)) == 300


def test_computed_statistics_are_cached_by_the_files_they_are_of(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return statistics()

    one, other = fingerprint([("a", 1, 2)]), fingerprint([("a", 1, 3)])
    working = tmp_path / "work"
    assert cached_statistics(working, 0.3, one, compute) == statistics()
    assert cached_statistics(working, 0.3, one, compute) == statistics()
    assert len(calls) == 1
    cached_statistics(working, 0.3, other, compute)
    assert len(calls) == 2
    entry = json.loads((working / CACHE_NAME).read_text())["batch_stats_for_norm_pct_30"]
    assert entry["band_mean_values"] == [4.0]
    assert entry["scaled_std_values"] == [0.2]


def test_a_broken_cache_is_computed_anew(tmp_path):
    (tmp_path / CACHE_NAME).write_text("{")
    assert cached_statistics(tmp_path, 0.3, "x", statistics) == statistics()
    assert cached_statistics(tmp_path, 0.3, "x", lambda: pytest.fail("not cached")) == statistics()


def test_without_a_working_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cached_statistics(None, 0.3, "x", statistics)
    assert not list(tmp_path.iterdir())
