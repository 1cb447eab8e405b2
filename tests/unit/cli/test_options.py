"""Options come from signatures: names, defaults and help never drift from the function."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import pytest

from geodl.cli import main as run_main
from geodl.cli.options import add_options, given, parameter_help, read_value


def work(
    source: Any,
    count: int = 3,
    share: float = 0.5,
    name: str | None = None,
    wide: bool = False,
    keep: bool = True,
    mode: bool | str = True,
    size: Mapping[str, int] | None = None,
    tile: Mapping[str, int] | int | None = None,
    anything: Any = None,
    *,
    gis: Any = None,
    **kwargs: Any,
) -> None:
    """Work.

    Parameters
    ----------
    source
        What is read, 100 % of it. More is said here.
    count
        How many; never 0 %.
    wide, keep
        Both of these.
    **kwargs
        Others.

    Returns
    -------
    Nothing.
    """


def parse(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    names = add_options(parser, work, positional=("source",), without=("anything",))
    assert names == [
        "source", "count", "share", "name", "wide", "keep", "mode", "size", "tile", "gis"
    ]  # fmt: skip
    return given(parser.parse_args(words), names)


def test_what_is_not_on_the_command_line_is_left_to_the_function() -> None:
    assert parse("a.tif") == {"source": "a.tif"}


def test_each_kind_of_parameter() -> None:
    words = "a.tif --count 4 --share 1 --name 007 --wide --no-keep --mode all --size x=2 y=3"
    assert parse(*words.split()) == {
        "source": "a.tif",
        "count": 4,
        "share": 1.0,
        "name": "007",
        "wide": True,
        "keep": False,
        "mode": "all",
        "size": {"x": 2, "y": 3},
    }


def test_pairs_may_be_json_and_repeated() -> None:
    assert parse("a", "--size", '{"x": 1}', "--size", "y=[1, 2]", "z=text")["size"] == {
        "x": 1,
        "y": [1, 2],
        "z": "text",
    }


def test_one_number_may_stand_for_a_pair() -> None:
    assert parse("a", "--tile", "256")["tile"] == 256
    assert parse("a", "--tile", "x=2", "y=3")["tile"] == {"x": 2, "y": 3}
    assert parse("a", "--tile", "256", "--tile", "x=2")["tile"] == {"x": 2}


@pytest.mark.parametrize(
    "words",
    [
        ["a", "--size", "x"],
        ["a", "--size", "3"],
        ["a", "--count", "many"],
        ["a", "--future", "1"],
        [],
    ],
)
def test_wrong_use_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2


def test_a_source_may_be_a_list_of_them() -> None:
    assert parse('["a.tif", "b.tif"]') == {"source": ["a.tif", "b.tif"]}
    assert parse("[a].tif") == {"source": "[a].tif"}


def test_values_are_json_where_they_can_be() -> None:
    assert read_value("0.3") == 0.3
    assert read_value("true") is True
    assert read_value("True") == "True"
    assert read_value("[[1, 1]]") == [[1, 1]]
    assert read_value("resnet18") == "resnet18"


def test_help_is_the_docstrings_first_sentence() -> None:
    assert parameter_help(work) == {
        "source": "What is read, 100 % of it",
        "count": "How many; never 0 %",
        "wide": "Both of these",
        "keep": "Both of these",
        "kwargs": "Others",
    }
    parser = argparse.ArgumentParser(prog="x")
    add_options(parser, work, positional=("source",))
    text = " ".join(parser.format_help().split())
    assert "What is read, 100 % of it" in text
    assert "How many; never 0 % (default 3)" in text
    assert parameter_help(lambda: None) == {}


def test_help_of_a_tool_says_how_several_rasters_are_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run_main(["classify", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "folder, a pattern in quotes ('tiles/*.tif') or a JSON list" in text
