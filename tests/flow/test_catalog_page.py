"""``catalog.html`` in a real browser: every item, its picture, and the search box."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import geodl

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
GOLDEN = Path(__file__).parents[1] / "golden"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"no browser ({', '.join(BROWSERS)}) is installed; apt-get install chromium")
    return found


def test_the_page_shows_products_and_models(browser, scene, tmp_path):
    catalog = geodl.Catalog(tmp_path / "catalog")
    catalog.add(scene.raster, title="The scene & more")
    catalog.add(scene.labels)
    catalog.add(GOLDEN / "schema1_labels.dlpk")
    shot = tmp_path / "page.png"
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900",
        "--virtual-time-budget=3000",
    ]  # fmt: skip
    page = catalog.page.as_uri()
    subprocess.run([*command, f"--screenshot={shot}", page], check=True, capture_output=True)
    done = subprocess.run(
        [*command, "--dump-dom", page], check=True, capture_output=True, text=True
    )
    assert done.stdout.count("<article>") == 3
    assert "The scene &amp; more" in done.stdout
    assert "FeatureClassifier" in done.stdout
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    colourful = (pixels.max(2) - pixels.min(2)) > 60
    # The pictures of the scene and of its features; text alone has fewer colours.
    assert colourful.sum() > 3000
