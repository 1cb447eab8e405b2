"""The SLURM recipe on a real SLURM of one node: one product, also after a job that was killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geodl.base.signals import interrupts_kept
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels

ROOT = Path(__file__).parents[2]
JOB = ROOT / "cluster" / "slurm" / "job.sh"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
ARGUMENTS = {"tile_size": 24, "padding": 8}
SIZE, BLOCK = 400, 8

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import os, sys
import geodl
from distributed import WorkerPlugin
from geodl.tools.classify_pixels import classify_pixels

class Tiny(WorkerPlugin):
    name = "tiny"
    def setup(self, worker):
        from geodl.testing.tiny import register_tiny_models
        register_tiny_models()

Tiny().setup(None)
raster, model, output, block = sys.argv[1:]
with geodl.connect(os.environ["GEODL_CLIENT"]) as client:
    client.register_plugin(Tiny())
    client.wait_for_workers(2, timeout=120)
    classify_pixels(raster, model, {"tile_size": 24, "padding": 8}, output, block_size=int(block))
"""


def tool(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two workers need two cores")
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; run tests/slurm/install_slurm.sh")
    if os.geteuid() != 0:
        pytest.skip("the daemons of SLURM are started as root, and this is another user")
    folder = tmp_path_factory.mktemp("slurm")
    script = ROOT / "tests" / "slurm" / "start_slurm.sh"
    try:
        subprocess.run([script, folder], check=True, timeout=90)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            patch.setenv("GEODL_ENVIRONMENT", sys.prefix)
            # What a test run sets is not a user's own wish.
            patch.delenv("OMP_NUM_THREADS", raising=False)
            yield
    finally:
        subprocess.run([script.with_name("stop_slurm.sh"), folder], check=True, timeout=60)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    data = np.random.default_rng(5).integers(1, 255, (3, SIZE, SIZE), dtype=np.uint8)
    data[:, :70, :90] = 0
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIZE, width=SIZE, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=from_origin(1000, 2000, 1, 1), tiled=True, blockxsize=64,
        blockysize=64,
    ) as file:  # fmt: skip
        file.write(data)
    return path, tiny_model(tmp_path / "model", "pixels")


def submit(inputs: tuple[Path, Path], output: Path, block: int, *options: str) -> str:
    script = output.parent / "script.py"
    script.write_text(SCRIPT)
    return tool(
        "sbatch", "--parsable", "--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=1500M",
        f"--chdir={output.parent}", *options, JOB, "python", script, *inputs, output, block,
    ).strip()  # fmt: skip


def state(job: str) -> str:
    text = tool("scontrol", "--oneliner", "show", "job", job)
    return text.partition("JobState=")[2].split()[0]


def ended(job: str, within_s: float = 240) -> str:
    """The state that a job ends in."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = state(job)
        if found not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
            return found
        time.sleep(0.3)
    pytest.fail(f"job {job} is still {state(job)}")


def lines(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (run / "ledger").glob("*.jsonl"))


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()  # type: ignore[no-any-return]


def serial(inputs: tuple[Path, Path], path: Path) -> np.ndarray:
    register_tiny_models()
    raster, model = inputs
    classify_pixels(str(raster), str(model), ARGUMENTS, path, progress=False, block_size=SIZE)
    return pixels(path)


def log(folder: Path, job: str) -> str:
    return (folder / f"geodl-{job}.log").read_text()


def test_a_job_makes_the_product_of_one_process(
    slurm: None, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "map.tif"
    job = submit(inputs, output, 48)
    assert ended(job) == "COMPLETED", log(tmp_path, job)
    np.testing.assert_array_equal(pixels(output), serial(inputs, tmp_path / "serial.tif"))
    assert not list(tmp_path.glob(".geodl-job-*"))


def test_a_killed_job_is_ended_by_the_same_one_submitted_again(
    slurm: None, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "map.tif"
    run = tmp_path / "map.tif.run"
    job = submit(inputs, output, BLOCK)
    wait_for_blocks(output, job, 100)
    tool("scancel", "--full", "--signal=KILL", job)
    ended(job)
    before = lines(run)
    assert not output.exists()
    assert before < (SIZE // BLOCK) ** 2
    again = submit(inputs, output, BLOCK)
    assert ended(again) == "COMPLETED", log(tmp_path, again)
    assert_resumed(output, before)
    np.testing.assert_array_equal(pixels(output), serial(inputs, tmp_path / "serial.tif"))


def test_a_job_whose_walltime_ends_soon_queues_itself_again_and_resumes(
    slurm: None, inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEODL_REQUEUE", "1")
    output = tmp_path / "map.tif"
    job = submit(inputs, output, BLOCK, "--requeue")
    wait_for_blocks(output, job, 100)
    # What SLURM sends two minutes before the end; its clock for that counts in minutes.
    tool("scancel", "--batch", "--signal=USR1", job)
    deadline = time.monotonic() + 60
    while "Restarts=1" not in tool("scontrol", "--oneliner", "show", "job", job):
        assert time.monotonic() < deadline, log(tmp_path, job)
        time.sleep(0.2)
    before = lines(Path(f"{output}.run"))
    # SLURM would hold it back for two minutes, lest a broken job be queued for ever.
    while state(job) != "RUNNING" and time.monotonic() < deadline:
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
        time.sleep(0.5)
    assert ended(job) == "COMPLETED", log(tmp_path, job)
    assert f"requeueing job {job}" in log(tmp_path, job)
    assert_resumed(output, before)
    np.testing.assert_array_equal(pixels(output), serial(inputs, tmp_path / "serial.tif"))


def test_a_recipe_starts_workers_as_jobs(
    slurm: None, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    with interrupts_kept():
        pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
    (tmp_path / "recipe.yaml").write_text(
        "cluster: slurm\n"
        "options:\n"
        "  workers: 2\n"
        "  memory_limit: 1500MB\n"
        '  walltime: "00:10:00"\n'
        f"  log_directory: {tmp_path}\n"
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    output = tmp_path / "map.tif"
    subprocess.run(
        [sys.executable, tmp_path / "script.py", *inputs, output, "48"],
        env={**os.environ, "GEODL_CLIENT": str(tmp_path / "recipe.yaml")},
        cwd=tmp_path,
        check=True,
        timeout=240,
    )
    np.testing.assert_array_equal(pixels(output), serial(inputs, tmp_path / "serial.tif"))
    # Closing the client ends the jobs.
    deadline = time.monotonic() + 60
    while tool("squeue", "--noheader"):
        assert time.monotonic() < deadline, "jobs outlive the client"
        time.sleep(0.3)


def wait_for_blocks(output: Path, job: str, count: int) -> None:
    run = Path(f"{output}.run")
    deadline = time.monotonic() + 120
    while not (run.exists() and lines(run) >= count):
        assert time.monotonic() < deadline, log(output.parent, job)
        assert state(job) in ("PENDING", "RUNNING"), log(output.parent, job)
        time.sleep(0.02)


def assert_resumed(output: Path, before: int) -> None:
    blocks = json.loads(Path(f"{output}.manifest.json").read_text())["blocks"]
    assert blocks["total"] == blocks["done"] == (SIZE // BLOCK) ** 2
    # A line that the kill tore in two is computed again; one for each worker at most.
    assert before - 2 <= blocks["resumed"] <= before
