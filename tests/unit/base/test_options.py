"""Names and values that callers pass are checked, and errors say what would have been right."""

from __future__ import annotations

from pathlib import Path

import pytest

from geodl.base.errors import GeodlError, OptionError, UnknownOptionError
from geodl.base.options import (
    as_bool,
    as_float,
    as_int,
    as_path,
    check_choice,
    check_known,
    nearest,
)


def test_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownOptionError, match=r"context has no option 'cellsize'.*'cellSize'"):
        check_known({"cellsize": 1}, ["cellSize", "extent"], "context")


def test_a_misspelt_argument_of_a_function_with_keywords_is_answered_with_the_right_one() -> None:
    def fit(epochs: int, *args: int, lr: float = 0.1, **kwargs: int) -> None: ...

    with pytest.raises(UnknownOptionError, match=r"'epoch'\..* 'epochs'\? Known: epochs, lr, more"):
        check_known({"epoch": 1}, ["more"], "fit()", of=fit)


def test_paths_are_text_or_paths_and_nothing_else() -> None:
    assert as_path("~/x", "path") == Path.home() / "x"
    for wrong in (None, 5, ["x"]):
        with pytest.raises(OptionError, match=r"working_dir=.* is no path"):
            as_path(wrong, "working_dir")


def test_unknown_name_lists_all_known_ones() -> None:
    with pytest.raises(UnknownOptionError, match=r"Known: a, b\."):
        check_known(["zzz"], ["b", "a"], "this")


def test_unknown_name_where_nothing_is_known() -> None:
    with pytest.raises(UnknownOptionError, match="Known: none"):
        check_known(["x"], [], "this")


def test_unknown_option_is_also_a_type_error() -> None:
    assert issubclass(UnknownOptionError, TypeError)
    assert issubclass(UnknownOptionError, GeodlError)


def test_known_names_pass() -> None:
    check_known({"extent": 1}, ["cellSize", "extent"], "context")
    check_known({}, [], "context")


def test_nearest_says_nothing_for_strangers() -> None:
    assert nearest("qqqq", ["padding", "threshold"]) == ""
    assert nearest("treshold", ["padding", "threshold"]) == " Did you mean 'threshold'?"


def test_choice_returns_the_value_itself() -> None:
    assert check_choice("crop", ("crop", "blend"), "merge") == "crop"
    assert check_choice(2, (1, 2), "version") == 2


def test_choice_lists_what_is_offered() -> None:
    with pytest.raises(OptionError, match=r"merge='blendd' .*'blend'\?.*'crop', 'blend'"):
        check_choice("blendd", ("crop", "blend"), "merge")


@pytest.mark.parametrize("value", [True, 1, "true", "True", " T ", "y", "YES", "1"])
def test_true_in_all_its_spellings(value: object) -> None:
    assert as_bool(value, "x") is True


@pytest.mark.parametrize("value", [False, 0, "false", "F", "n", "no", "0"])
def test_false_in_all_its_spellings(value: object) -> None:
    assert as_bool(value, "x") is False


@pytest.mark.parametrize("value", ["", "maybe", 2, None, "truee", 0.5])
def test_neither_true_nor_false(value: object) -> None:
    with pytest.raises(OptionError, match="flag="):
        as_bool(value, "flag")


@pytest.mark.parametrize(
    ("value", "expected"), [(3, 3), ("3", 3), (3.0, 3), (" 4 ", 4), ("-2", -2)]
)
def test_whole_numbers(value: object, expected: int) -> None:
    result = as_int(value, "n")
    assert result == expected
    assert type(result) is int


@pytest.mark.parametrize("value", [1.5, "1.5", "x", None, True, float("nan"), float("inf"), [1]])
def test_not_a_whole_number(value: object) -> None:
    with pytest.raises(OptionError, match="batch="):
        as_int(value, "batch")


def test_least_whole_number() -> None:
    assert as_int(4, "batch", minimum=4) == 4
    with pytest.raises(OptionError, match="least is 4"):
        as_int(3, "batch", minimum=4)


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), ("0.25", 0.25), ("1e-3", 1e-3)])
def test_numbers(value: object, expected: float) -> None:
    assert as_float(value, "x") == expected


@pytest.mark.parametrize("value", ["x", None, "nan", float("inf"), True, {}])
def test_not_a_finite_number(value: object) -> None:
    with pytest.raises(OptionError, match="threshold="):
        as_float(value, "threshold")


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_number_outside_its_range(value: float) -> None:
    with pytest.raises(OptionError, match=r"outside 0\.\.1"):
        as_float(value, "threshold", minimum=0, maximum=1)


def test_ends_of_a_range_belong_to_it() -> None:
    assert as_float(0, "t", minimum=0, maximum=1) == 0
    assert as_float(1, "t", minimum=0, maximum=1) == 1
