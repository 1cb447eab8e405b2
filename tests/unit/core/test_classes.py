"""Class tables: values, names, colours and the order of the network's outputs."""

from __future__ import annotations

import numpy as np
import pytest

from geodl.base.errors import DataError
from geodl.core.classes import PALETTE, ClassEntry, ClassTable


def test_network_order_is_the_order_given_and_background_comes_first() -> None:
    table = ClassTable.from_mapping({7: "tree", 3: "roof"})
    assert table.names == ["tree", "roof"]
    assert table.values == [7, 3]
    assert table.index_by_value == {0: 0, 7: 1, 3: 2}
    np.testing.assert_array_equal(table.value_of_index(), [0, 7, 3])
    assert len(table) == 2
    assert [entry.name for entry in table] == ["tree", "roof"]


def test_value_and_index_are_inverse() -> None:
    table = ClassTable.from_mapping({9: "a", 2: "b", 40: "c"})
    values = table.value_of_index()
    assert all(table.index_by_value[int(value)] == i for i, value in enumerate(values))


def test_background_is_no_entry() -> None:
    assert ClassTable.from_mapping({0: "background", 1: "tree"}).names == ["tree"]
    with pytest.raises(DataError, match="background"):
        ClassTable((ClassEntry(value=0, name="x", color=(0, 0, 0)),))


@pytest.mark.parametrize("mapping", [[(1, "a"), (1, "b")], [(1, "a"), (2, "a")]])
def test_values_and_names_are_unique(mapping: list[tuple[int, str]]) -> None:
    with pytest.raises(DataError, match="more than once"):
        ClassTable.from_json([{"Value": v, "Name": n} for v, n in mapping])


def test_json_round_trip_keeps_everything() -> None:
    table = ClassTable(
        (
            ClassEntry(value=5, name="a", color=(1, 2, 3)),
            ClassEntry(value=-4, name="b", color=(255, 0, 9)),
        )
    )
    assert ClassTable.from_json(table.to_json()) == table


def test_statistics_entries_read_too_and_null_values_are_dropped() -> None:
    table = ClassTable.from_json(
        [
            {"ClassValue": "2", "ClassName": "tree"},
            {"ClassValue": None, "ClassName": "NoData"},
            {"Value": 3},
            {"Value": 4, "Name": None},
        ]
    )
    assert table.values == [2, 3, 4]
    assert table.names == ["tree", "3", "4"]


@pytest.mark.parametrize("value", [1.5, "x", "1.5", float("nan"), float("inf"), [], {}])
def test_a_value_that_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="is not a whole number"):
        ClassTable.from_json([{"Value": value, "Name": "a"}])


@pytest.mark.parametrize("color", [None, [], [1, 2], [1, 2, 300], ["a", "b", "c"], 7, [-1, 0, 0]])
def test_a_colour_that_is_none_comes_from_the_palette(color: object) -> None:
    table = ClassTable.from_json(
        [{"Value": 1, "Name": "a"}, {"Value": 2, "Name": "b", "Color": color}]
    )
    assert [entry.color for entry in table] == list(PALETTE[:2])


@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [
        ([1, 254], "uint8", 255),
        ([255], "uint16", 65535),
        ([65534], "uint16", 65535),
        ([65535], "int32", -(2**31)),
        ([-1], "int32", -(2**31)),
        ([], "uint8", 255),
    ],
)
def test_class_raster_takes_the_smallest_dtype_that_leaves_room_for_nodata(
    values: list[int], dtype: str, nodata: int
) -> None:
    table = ClassTable.from_mapping({value: f"c{value}" for value in values})
    assert table.raster_dtype() == (np.dtype(dtype), nodata)


def test_class_values_beyond_32_bits_are_refused() -> None:
    with pytest.raises(DataError, match="do not fit 32 bits"):
        ClassTable.from_mapping({2**31: "x"}).raster_dtype()
    with pytest.raises(DataError, match="do not fit 32 bits"):
        ClassTable.from_mapping({-(2**31): "x"}).raster_dtype()
