import io
import sys
import types

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from geodl.base.errors import OptionError
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.data.draw import draw_boxes, draw_mask, draw_picture, item_picture, rgb_bands, to_picture
from geodl.data.figure import new_figure, show
from geodl.data.prepare import prepare_data

CLASSES = ClassTable.from_json(
    [
        {"Value": 1, "Name": "a", "Color": [255, 0, 0]},
        {"Value": 2, "Name": "b", "Color": [0, 0, 255]},
    ]
)


@pytest.mark.parametrize(
    ("names", "bands", "shown"),
    [
        (("Blue", "Green", "Red", "NearInfrared"), 4, (2, 1, 0)),
        (("NearInfrared", "Red", "Green"), 3, (0, 1, 2)),
        ((), 5, (0, 1, 2)),
        ((), 1, (0,)),
        (("a", "b"), 2, (0,)),
    ],
)
def test_red_green_and_blue_are_found_by_name(names, bands, shown):
    assert rgb_bands(names, bands) == shown


def test_eight_bit_pictures_are_shown_as_they_are():
    data = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    np.testing.assert_array_equal(to_picture(data, None, "uint8"), np.moveaxis(data, 0, -1))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_pictures_are_stretched_over_their_valid_pixels(dtype):
    data = np.tile(np.arange(101, dtype=dtype), (101, 1))[None] * 10 + 500
    data[0, :, 0] = 60000  # outside the mask: must not widen the stretch
    valid = np.ones((101, 101), bool)
    valid[:, 0] = False
    picture = to_picture(data, valid, dtype)
    assert picture.shape == (101, 101, 3)
    assert (picture[:, 0] == 0).all()
    assert (picture[:, 2] == 0).all()  # below the 2nd percentile
    assert (picture[:, 99] == 255).all()
    assert int(picture[0, 51, 0]) == pytest.approx(128, abs=3)


def test_nan_and_constant_bands_do_not_break_a_picture():
    data = np.stack([np.full((4, 4), np.nan), np.full((4, 4), 3.0), np.zeros((4, 4))])
    assert to_picture(data.astype(np.float32), None, "float32").max() == 0


def pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    buffer.seek(0)
    return imread(buffer)[..., :3]


def canvas():
    figure = new_figure(2, 2)
    axes = figure.add_axes((0, 0, 1, 1))
    figure.set_layout_engine("none")
    draw_picture(axes, np.zeros((10, 10, 3), np.uint8))
    return figure, axes


def test_boxes_are_drawn_on_pixel_edges_in_their_colours():
    figure, axes = canvas()
    draw_boxes(axes, np.array([[2.0, 1.0, 8.0, 4.0]]), np.array([2]), CLASSES)
    blue = pixels(figure)[..., 2] > 0.9
    rows, cols = np.nonzero(blue)
    assert [cols.min(), cols.max(), rows.min(), rows.max()] == pytest.approx(
        [40, 160, 20, 80], abs=3
    )


def test_masks_are_laid_over_all_but_background_and_ignored_pixels():
    figure, axes = canvas()
    indices = np.zeros((10, 10), int)
    indices[:5] = 1
    indices[9] = IGNORE_INDEX
    draw_mask(axes, indices, CLASSES)
    red = pixels(figure)[..., 0]
    assert red[40, 100] == pytest.approx(0.5, abs=0.02)
    assert red[140, 100] == 0
    assert red[195, 100] == 0


@pytest.mark.parametrize("mode", ["PASCAL_VOC_rectangles", "Classified_Tiles"])
@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (1, "float32"), (13, "uint16")])
def test_show_batch_gives_a_figure_of_rows_of_chips(make_export, mode, bands, dtype):
    data = prepare_data(make_export(mode=mode, bands=bands, dtype=dtype, size=(24, 24)))
    figure = data.show_batch(rows=2)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 6
    assert all(axes.images for axes in figure.axes)
    if mode == "PASCAL_VOC_rectangles":
        assert sum(len(axes.patches) for axes in figure.axes) >= 3
    else:
        assert all(len(axes.images) == 2 for axes in figure.axes)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"building", "tree"}


def test_show_batch_draws_more_rows_than_there_are_chips(make_export):
    assert len(prepare_data(make_export(chips=2)).show_batch(4, columns=1).axes) == 4


def test_the_picture_of_an_item_is_the_raw_chip_and_black_where_it_has_no_data(make_export):
    data = prepare_data(make_export(mode="Classified_Tiles", nodata=7), transforms=False)
    item = data.valid_ds[0]
    item["target"][:3] = IGNORE_INDEX
    raw = data.valid_ds.store[data.valid_ds.positions[0]].data
    picture = item_picture(item, data.normalization, data.dtype, data.band_names)
    assert (picture[:3] == 0).all()
    np.testing.assert_array_equal(picture[3:], np.moveaxis(raw, 0, -1)[3:])


@pytest.mark.parametrize("rows", [0, "many"])
def test_show_batch_refuses_rows_that_are_none(make_export, rows):
    with pytest.raises(OptionError, match="rows"):
        prepare_data(make_export()).show_batch(rows)


def test_a_figure_is_kept_by_nobody_but_its_caller(make_export):
    prepare_data(make_export()).show_batch(1)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


class Notebook:
    kernel = object()
    execution_count = 1


def test_a_notebook_shows_a_figure_once_per_cell(monkeypatch):
    shown = []
    shell = Notebook()
    display = types.ModuleType("IPython.display")
    display.display = shown.append
    display.Image = lambda data: data
    package = types.ModuleType("IPython")
    package.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    figure = show(new_figure(1, 1))
    assert len(shown) == 1
    assert shown[0].startswith(b"\x89PNG")
    figure._ipython_display_()  # the last value of the same cell
    assert len(shown) == 1
    shell.execution_count = 2
    figure._ipython_display_()
    assert len(shown) == 2


def test_outside_notebooks_nothing_is_displayed(capsys):
    show(new_figure(1, 1))
    assert capsys.readouterr().out == ""
