"""In a browser: the run's page and the dashboard load and show the run's tasks by name."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from distributed import Client
from rasterio.transform import from_origin
from tornado.websocket import websocket_connect

from geodl.runtime.connect import connect
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = 192

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a headless browser's debugging port."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"no browser ({', '.join(BROWSERS)}) is installed; apt-get install chromium")
    folder = tmp_path_factory.mktemp("browser")
    command = [
        found, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", "--window-size=1400,900", f"--user-data-dir={folder}",
        "about:blank",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        port = folder / "DevToolsActivePort"
        until(lambda: port.exists() and port.read_text().count("\n"), "the browser did not start")
        yield f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    pytest.importorskip("bokeh", reason="the extra dashboard is not installed")
    with connect("local", workers=1, threads_per_worker=2) as found:
        found.run(register_tiny_models)
        yield found


@pytest.fixture(scope="module")
def run(client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A finished run: the name of its tasks, and its report."""
    folder = tmp_path_factory.mktemp("run")
    register_tiny_models()
    data = np.random.default_rng(0).integers(1, 255, (3, SIZE, SIZE), dtype=np.uint8)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", count=3, height=SIZE, width=SIZE, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(1000, 2000, 1, 1),
    ) as file:  # fmt: skip
        file.write(data)
    classify_pixels(
        str(folder / "scene.tif"),
        str(tiny_model(folder / "model", "pixels")),
        {"tile_size": 32, "padding": 8},
        folder / "map.tif",
        client=client,
        block_size=16,
        progress=False,
        report=folder / "run.html",
    )
    manifest = json.loads((folder / "map.tif.manifest.json").read_text())
    return f"geodl_classify_pixels_{manifest['fingerprint'][:8]}", folder / "run.html"


def until(there: Any, otherwise: str, within_s: float = 60) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = there()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(otherwise)


def evaluate(browser: str, url: str, expression: str) -> Any:
    """Open a page and evaluate JavaScript in it until that gives something true."""
    request = urllib.request.Request(f"{browser}/json/new?{url}", method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        tab = json.load(answer)

    async def ask() -> Any:
        socket = await websocket_connect(tab["webSocketDebuggerUrl"])
        try:
            for number in range(60):
                call = {"expression": expression, "returnByValue": True, "awaitPromise": True}
                message = {"id": number, "method": "Runtime.evaluate", "params": call}
                await socket.write_message(json.dumps(message))
                while True:
                    text = await socket.read_message()
                    answer = json.loads(text or "{}")
                    if answer.get("id") == number:
                        break
                value = answer["result"]["result"].get("value")
                if value:
                    return value
                await asyncio.sleep(0.5)
        finally:
            socket.close()
            while await socket.read_message() is not None:
                pass
        pytest.fail(f"{url} never gave {expression}: {answer}")

    return asyncio.run(ask())


# All texts in the data of all plots of a page of bokeh: what its canvases draw.
DRAWN = """(() => {
  if (typeof Bokeh === "undefined") return "";
  const texts = new Set();
  for (const document of Bokeh.documents)
    for (const model of document._all_models.values())
      if (model.data && model.columns)
        for (const name of model.columns())
          for (const value of model.data[name] || [])
            if (typeof value === "string") texts.add(value);
  const found = [...texts].filter(text => text.includes("geodl_"));
  return found.join("\\n");
})()"""


def link(client: Client, name: str) -> str:
    return client.dashboard_link.removesuffix("status") + name


def test_the_page_of_runs_shows_blocks_and_speed(
    browser: str, client: Client, run: tuple[str, Path]
) -> None:
    name, _ = run
    shown = evaluate(browser, link(client, "geodl"), "document.querySelector('section')?.innerText")
    blocks = (SIZE // 16) ** 2
    assert f"{name} finished" in shown
    assert f"{blocks} of {blocks} (100 %)" in shown
    for label in ("MPix/s", "device busy", "failed"):
        assert label in shown


def test_the_dashboard_draws_the_tasks_of_a_run_by_name(
    browser: str, client: Client, run: tuple[str, Path]
) -> None:
    name, _ = run
    # Finished tasks leave the progress bars; the task stream keeps them by name.
    shown = evaluate(browser, link(client, "individual-task-stream"), DRAWN)
    assert name in shown.split("\n")


def test_the_report_opens_without_a_server(browser: str, run: tuple[str, Path]) -> None:
    name, report = run
    assert name in evaluate(browser, report.as_uri(), DRAWN).split("\n")
