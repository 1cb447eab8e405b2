"""DETReg, RTDetrV2 and DFine: arguments, the first stage, use after training."""

import pytest
import rasterio
import torch

from geodl.base.errors import ModelDataError, NotSupportedError, OptionError, UnknownOptionError
from geodl.data.prepare import prepare_data
from geodl.learn import DETReg, DFine, RTDetrV2, detect_objects
from geodl.testing import make_scene

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")

FEW = {"backbone": "resnet18", "num_queries": 12, "width": 64, "encoder_layers": 1,
       "decoder_layers": 1}  # fmt: skip


@pytest.fixture(scope="module")
def data(box_chips, tmp_path_factory):
    work = tmp_path_factory.mktemp("query-models")
    return prepare_data(box_chips, batch_size=4, transforms=False, working_dir=work)


@pytest.mark.parametrize(
    ("model_class", "options", "error", "word"),
    [
        (DETReg, {"num_query": 3}, UnknownOptionError, "num_queries"),
        (DETReg, {"denoising_queries": 3}, UnknownOptionError, "denoising_queries"),
        (RTDetrV2, {"width": 100}, OptionError, "multiple of 64"),
        (DFine, {"decoder_layers": 0}, OptionError, "decoder_layers"),
        (RTDetrV2, {"backbone": "resnet19"}, NotSupportedError, "resnet18"),
    ],
)
def test_wrong_arguments_are_refused_by_name(data, model_class, options, error, word):
    with pytest.raises(error, match=word):
        model_class(data, **options)


def test_the_lists(data):
    model = DETReg(data, **FEW)
    assert "resnet50" in model.supported_backbones == DETReg.backbones()
    assert "PASCAL_VOC_rectangles" in model.supported_datasets
    assert model.contract.variable_tile is False


def test_queries_are_no_more_than_the_places_of_a_chip(data):
    model = RTDetrV2(data, **{**FEW, "num_queries": 500})
    assert model.net.detr.config.num_queries == 84
    assert DETReg(data, **{**FEW, "num_queries": 500}).net.detr.config.num_queries == 500


def weights(model):
    return {name: value.clone() for name, value in model.net.state_dict().items()}


def test_the_first_stage_of_detreg_trains_all_but_backbone_and_class_scores(data, capsys):
    model = DETReg(data, **FEW)
    before = weights(model)
    model.pretrain(2, 1e-3, regions=8)
    table = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[1]) for line in table if line.split()[:1] in (["1"], ["2"])]
    assert losses[1] < losses[0]
    assert model.record.rows == []
    after = weights(model)
    for name, value in before.items():
        kept = ".backbone." in name or ".class_embed." in name
        if kept:
            assert torch.equal(value, after[name]), name
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    assert any("encoder" in name for name in changed)
    assert any("bbox_embed" in name for name in changed)
    assert all(p.requires_grad for p in model.net.parameters())
    model.fit(1, 1e-3)
    with pytest.raises(OptionError, match="regions"):
        model.pretrain(1, 1e-3, regions=0)


@pytest.mark.parametrize("model_class", [DETReg, RTDetrV2, DFine])
def test_found_objects_are_features_and_training_goes_on_after_use(model_class, data, tmp_path):
    model = model_class(data, **FEW)
    scene = make_scene(tmp_path, size=(64, 90), nodata_corner=False)
    found = detect_objects(
        scene.raster, model, {"threshold": 0.0, "nms_overlap": 0.5, "batch_size": 4},
        tmp_path / "found.gpkg", progress=False, block_size=32,
    )  # fmt: skip
    assert len(found) > 0
    assert set(found.Class) <= set(model.contract.classes.names)
    left, _, _, top = found.total_bounds
    with rasterio.open(scene.raster) as file:
        assert left >= file.bounds.left - 1e-6
        assert top <= file.bounds.top + 1e-6
    model.fit(1, 1e-3)
    assert len(model.record.rows) == 1


def test_a_model_without_data_has_no_first_stage(data, tmp_path):
    model = DETReg(data, **FEW)
    opened = DETReg.from_model(model.save(tmp_path / "model"))
    with pytest.raises(ModelDataError, match="pretrain"):
        opened.pretrain()
