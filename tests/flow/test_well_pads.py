"""The published well-pad workflow, as `examples/well_pads.py` has it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from geodl.learn import SingleShotDetector

EXAMPLE = Path(__file__).parents[2] / "examples" / "well_pads.py"

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")

# The published lines, without what names the data.
PUBLISHED = (
    '"PNG", {"x": 448, "y": 448}, {"x": 224, "y": 224}',
    '"PASCAL_VOC_rectangles", 75,',
    "prepare_data(chips, {1: '  Pad'})",
    "data.show_batch()",
    "SingleShotDetector(data, grids=[9], zooms=[1.0], ratios=[[1.0, 1.0]])",
    "ssd.lr_find()",
    "ssd.fit(10, slice(0.001, 0.02))",
    "ssd.unfreeze()",
    "ssd.show_results(rows=25, thresh=0.05)",
)


def run_example(folder: Path) -> None:
    runpy.run_path(str(EXAMPLE))["main"](folder)
    for product in ("batch.png", "results.png", "planetdemo/map.txt"):
        assert (folder / product).stat().st_size > 0


def test_the_example_holds_the_published_lines():
    text = EXAMPLE.read_text().replace('"  Pad"', "'  Pad'")
    assert [line for line in PUBLISHED if line not in text] == []


def test_every_published_line_runs(tmp_path, monkeypatch):
    """With a smaller backbone, one epoch and a short search for the rate, to take seconds."""
    monkeypatch.setattr("geodl.models.single_shot_detector._DEFAULT_BACKBONE", "resnet18")
    monkeypatch.setattr("geodl.train.lr_find.STEPS", 2)
    trained = []
    fit = SingleShotDetector.fit

    def one_epoch(self, epochs, lr):
        trained.append((self, epochs, lr))
        fit(self, 1, lr)

    monkeypatch.setattr(SingleShotDetector, "fit", one_epoch)
    run_example(tmp_path)
    ((model, epochs, lr),) = trained
    assert (epochs, lr) == (10, slice(0.001, 0.02))
    assert model.contract.tile_px == 224
    assert model.net.layout.grids == (9,)
    assert model.data.classes == ["  Pad"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_workflow_runs_as_published(tmp_path, capsys):
    run_example(tmp_path)
    assert "average_precision" in capsys.readouterr().out
