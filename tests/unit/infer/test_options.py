"""model_arguments and context are read with the documented defaults, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from geodl.base.errors import OptionError, UnknownOptionError
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, Normalization, TaskKind
from geodl.infer.options import run_context, tile_options


def contract(kind: TaskKind, classes: int = 2, model_name: str = "X", **more: Any) -> ModelContract:
    return ModelContract(
        model_name=model_name,
        kind=kind,
        classes=ClassTable.from_mapping({v: f"c{v}" for v in range(1, classes + 1)}),
        extract_bands=(0, 1, 2),
        band_names=(),
        source_bands=3,
        tile_px=224,
        normalization=Normalization.imagenet(),
        **more,
    )


def test_defaults_of_detectors() -> None:
    options = tile_options(contract("objects"), None)
    assert (options.tile_px, options.padding_px, options.merge) == (224, 56, "crop")
    assert options.run.answer() == {
        "threshold": 0.5,
        "nms_overlap": 0.1,
        "exclude_pad_detections": True,
        "augment": False,
        "scales": [1.0],
    }
    assert options.batch_for("objects", "cuda", 1000) == 64
    assert options.batch_for("objects", "cpu", 1000) == 8
    assert options.batch_for("objects", "cuda", 5) == 5


@pytest.mark.parametrize(("classes", "background"), [(1, True), (2, False), (5, False)])
def test_background_is_predicted_by_default_for_one_class_only(
    classes: int, background: bool
) -> None:
    run = tile_options(contract("pixels", classes), {}).run.answer()
    assert run["predict_background"] is background
    assert tile_options(contract("pixels"), {}).batch_for("pixels", "cpu", 99) == 4


def test_texts_are_read_as_values() -> None:
    given = {
        "padding": "16",
        "batch_size": "3",
        "threshold": "0.25",
        "exclude_pad_detections": "False",
        "test_time_augmentation": "yes",
        "tta_scales": "0.5,1,2",
        "tile_size": "128",
    }
    options = tile_options(contract("objects"), given)
    assert (options.tile_px, options.padding_px, options.batch) == (128, 16, 3)
    assert options.run.answer() == {
        "threshold": 0.25,
        "nms_overlap": 0.1,
        "exclude_pad_detections": False,
        "augment": True,
        "scales": [0.5, 1.0, 2.0],
    }


@pytest.mark.parametrize(
    ("kind", "given", "word"),
    [
        ("objects", {"treshold": 0.3}, "Did you mean 'threshold'"),
        ("pixels", {"threshold": 0.3}, "no option 'threshold'"),
        ("objects", {"threshold": 1.5}, "threshold=1.5"),
        ("objects", {"threshold": "high"}, "threshold='high'"),
        ("objects", {"padding": 112}, "the most is 111"),
        ("objects", {"padding": 3.5}, "padding=3.5"),
        ("objects", {"batch_size": 0}, "batch_size=0"),
        ("pixels", {"merge_policy": "median"}, "merge_policy='median'"),
        ("pixels", {"predict_background": "perhaps"}, "predict_background='perhaps'"),
        ("pixels", {"overlap": "blended"}, "Did you mean 'blend'"),
        ("objects", {"tta_scales": "0"}, "tta_scales"),
    ],
)
def test_wrong_arguments_are_named(kind: TaskKind, given: dict[str, Any], word: str) -> None:
    with pytest.raises((OptionError, UnknownOptionError), match=word):
        tile_options(contract(kind), given)


def test_a_model_of_one_tile_size_says_so() -> None:
    with pytest.raises(OptionError, match="224 only"):
        tile_options(contract("objects", variable_tile=False), {"tile_size": 300})


def test_context_is_read() -> None:
    context = run_context(
        {
            "cellSize": "0.5",
            "extent": {
                "xmin": 0,
                "ymin": 1,
                "xmax": 2,
                "ymax": 3,
                "spatialReference": {"wkid": 102100},
            },
            "outSR": {"wkid": 32633},
            "processorType": "cpu",
            "parallelProcessingFactor": "50%",
        }
    )
    assert context.cell_size == (0.5, 0.5)
    assert context.cell_crs is None
    assert context.extent == (0, 1, 2, 3)
    assert context.extent_crs is not None
    assert "Mercator" in context.extent_crs
    assert context.out_crs is not None
    assert "UTM zone 33N" in context.out_crs
    assert context.device == "cpu"
    assert context.threads is not None
    assert context.threads >= 1
    assert run_context(None).device is None


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"cellsize": 1}, "Did you mean 'cellSize'"),
        ({"cellSize": -1}, "cellSize"),
        ({"cellSize": {"y": 1}}, 'lacks "x"'),
        ({"cellSize": {"x": 1, "y": 0}}, "not above 0"),
        ({"cellSize": {"x": 1, "z": 1}}, "'z'"),
        ({"extent": {"xmin": 0}}, "lacks ymin, xmax, ymax"),
        ({"extent": {"xmin": 0, "ymin": 1, "xmax": 1, "ymax": 1}}, "empty"),
        ({"extent": "all"}, "xmin"),
        ({"outSR": {"wkid": 999999}}, "outSR"),
        ({"processorType": "TPU"}, "processorType"),
        ({"parallelProcessingFactor": "most"}, "parallelProcessingFactor"),
    ],
)
def test_wrong_context_is_named(given: dict[str, Any], word: str) -> None:
    with pytest.raises((OptionError, UnknownOptionError), match=word):
        run_context(given)


def test_models_of_lines_have_arguments_of_their_own() -> None:
    edges = contract("pixels", 2, model_name="HEDEdgeDetector")
    run = tile_options(edges, {"threshold": "0.25"}).run.answer()
    assert (run["predict_background"], run["threshold"], run["thinning"]) == (True, 0.25, True)
    assert tile_options(edges, {"overlap": "blend"}).run.answer()["thinning"] is False
    probabilities = tile_options(edges, {"return_probability_raster": "true"}).run.answer()
    assert probabilities["output"] == "scores"
    roads = contract("pixels", 1, model_name="MultiTaskRoadExtractor", variable_tile=True)
    run = tile_options(roads, {"test_time_augmentation": True}).run.answer()
    assert (run["policy"], run["thinning"]) == ("max", False)
    for found, given, word in (
        (edges, {"predict_background": True}, "predict_background"),
        (edges, {"overlap": "blend", "thinning": True}, "overlap='crop'"),
        (roads, {"thinning": True}, "thinning"),
        (roads, {"threshold": 2}, "threshold=2"),
    ):
        with pytest.raises((OptionError, UnknownOptionError), match=word):
            tile_options(found, given)
