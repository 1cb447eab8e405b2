"""The published well-pad workflow (object detection with arcgis.learn) on a generated scene.

    python examples/well_pads.py [FOLDER [SIDE]]

Only the lines that import and that name the data differ from the published ones: there the image
was a mosaic of satellite pictures and the pads were points; here both are generated. The scene is
so small that the workflow ends after a minute or two on two cores; give a SIDE of 4000 pixels,
and a GPU, for a detector that finds pads.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import geopandas

from geodl.functions import extract_band
from geodl.learn import SingleShotDetector, export_training_data, prepare_data
from geodl.testing import make_scene


def main(folder: Path, side_px: int = 672) -> None:
    # The image, and the known pads as points, whose surroundings of 75 m are the labels.
    scene = make_scene(folder / "scene", classes=("pad",), size=(side_px, side_px), cell_size=2.0)
    planet_mosaic_data = extract_band(scene.raster, [1, 2, 3])
    well_pads = geopandas.read_file(scene.labels)
    well_pads = well_pads.set_geometry(well_pads.centroid)[["geometry"]]

    chips = export_training_data(
        planet_mosaic_data, well_pads, "PNG", {"x": 448, "y": 448}, {"x": 224, "y": 224},
        "PASCAL_VOC_rectangles", 75, str(folder / "planetdemo"),
    )  # fmt: skip

    data = prepare_data(chips, {1: "  Pad"})
    data.show_batch().savefig(folder / "batch.png")

    ssd = SingleShotDetector(data, grids=[9], zooms=[1.0], ratios=[[1.0, 1.0]])
    ssd.lr_find()
    ssd.fit(10, slice(0.001, 0.02))
    ssd.unfreeze()
    ssd.show_results(rows=25, thresh=0.05).savefig(folder / "results.png")
    print(f"pictures of chips and results: {folder}")


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="well_pads_")
    main(Path(target), *map(int, sys.argv[2:3]))
