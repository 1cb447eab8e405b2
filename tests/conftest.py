"""Settings and shared inputs of all tests."""

from __future__ import annotations

import os

# Before any test imports numpy, torch or matplotlib.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["GEODL_OFFLINE"] = "1"

import multiprocessing
import pickle
import signal
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

# The same examples in every run, and none refused for the time a busy machine takes.
settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("gate")

MakeOnce = Callable[[str, Callable[[Path], object]], Path]
StartScript = Callable[..., BaseProcess]

_LOADED_ONCE = [
    "pytest",  # The main module, which every new process looks at.
    "geodl.testing.tiny",
    "geodl.testing.tiny_boxes",
    "geodl.testing.tiny_points",
    "geodl.tools.classify_pixels",
    "geodl.tools.classify_points",
    "geodl.tools.detect_objects",
    "geodl.tools.detect_objects_3d",
    "geodl.tools.export_training_data",
]


# What torch starts with, so that whoever loads it first draws the same numbers as all others.
_TORCH_SEED = 67280421310721


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    _seed()


def _seed() -> None:
    """Random numbers of a test do not depend on which ran before it in this process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(_TORCH_SEED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped where torch sees no device."""
    wanted = [item for item in items if item.get_closest_marker("gpu")]
    if not wanted:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real sample data; the test is skipped where there is none."""
    named = os.environ.get("GEODL_SAMPLE_DATA")
    if not named:
        pytest.skip("GEODL_SAMPLE_DATA does not name the folder of real sample data")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"GEODL_SAMPLE_DATA={named} is not a folder")
    return folder


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MakeOnce:
    """``make_once(name, make)``: a folder that one process of the run fills, for all of them.

    ``make`` gets an empty folder. Tests must not write into it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / f"shared-{name}", shared / f"shared-{name}.done"
        with FileLock(shared / f"shared-{name}.lock"):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def start_script() -> StartScript:
    """``start_script(code, *words)``: a process that runs code with these words of ``sys.argv``.

    A new process that has nothing of this one: it is forked from one without threads that has
    loaded torch and the tools once, which takes each Python seconds of CPU. For kills and for
    calls that go on elsewhere; what is about a start itself needs ``sys.executable``.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED_ONCE)

    def start(code: str, *words: object) -> BaseProcess:
        argv = ["-c", *map(str, words)]
        given = {"__name__": "__main__", "argv": argv}
        process = context.Process(target=exec, args=(f"import sys; sys.argv = argv\n{code}", given))
        process.start()
        return process

    return start


_CLUSTER = """
import sys
from geodl.runtime.connect import connect
with connect("local", workers=2, dashboard_address=None) as client:
    print(client.scheduler.address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """Address of two workers on this machine, for all tests of this process."""
    # A process of its own: no threads of Dask run here but while a test is connected.
    cluster = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert cluster.stdout is not None
    yield cluster.stdout.readline().strip()
    cluster.communicate()


@pytest.fixture(scope="module")
def workers(cluster_address: str) -> Iterator[Any]:
    """A client of two workers that tests share: they must not kill them or change what they know.

    It is not the active one, which tools take where they are given none: those calls run here.
    Starting workers of one's own takes five processes and ten seconds of CPU.
    """
    from distributed import Client

    with Client(cluster_address, set_as_default=False) as client:
        yield client


_S3_SERVER = """
import logging
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
logging.getLogger("werkzeug").disabled = True
server.start()
print("%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="session")
def object_endpoint() -> Iterator[Any]:
    """An S3 server on this machine, which the process finds by its variables; a boto3 client."""
    needed = "the tests of s3:// need moto[server], boto3 and s3fs"
    boto3 = pytest.importorskip("boto3", reason=needed)
    pytest.importorskip("moto.server", reason=needed)
    s3fs = pytest.importorskip("s3fs", reason=needed)
    # A process of its own: GDAL may ask while it holds this one's lock, and would wait for ever.
    server = subprocess.Popen(
        [sys.executable, "-c", _S3_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    endpoint = server.stdout.readline().strip()
    variables = {
        # What GDAL reads, and what boto and s3fs do.
        "AWS_S3_ENDPOINT": endpoint,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ENDPOINT_URL": f"http://{endpoint}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield boto3.client("s3")
        for system in s3fs.S3FileSystem._cache.values():
            # Sockets left to the interpreter's end are warned of.
            system.close_session(system.loop, system._s3)
        s3fs.S3FileSystem.clear_instance_cache()
    server.communicate()


@pytest.fixture
def object_store(object_endpoint: Any) -> str:
    """The URL of a fresh bucket: ``s3://<name>``."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    object_endpoint.create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """Open figures would be warned of by the twentieth test that draws."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def _ctrl_c_stays() -> Iterator[None]:
    """Packages that take over Ctrl-C when they are imported must be kept from it."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert after is before, f"this test left {after} as the handler of Ctrl-C"


@pytest.fixture(scope="session")
def scene(make_once: MakeOnce) -> Any:
    """A generated scene of 256 x 256 pixels with buildings and trees (``geodl.testing.Scene``)."""
    from geodl.testing import make_scene

    folder = make_once("scene", lambda place: _pickled(place, make_scene(place, size=(256, 256))))
    return pickle.loads((folder / "made.pickle").read_bytes())


@pytest.fixture(scope="session")
def box_chips(make_once: MakeOnce) -> Path:
    """Nine chips of 64 pixels with boxes (PASCAL_VOC_rectangles)."""
    return make_once("box-chips", _chips("PASCAL_VOC_rectangles")) / "chips"


@pytest.fixture(scope="session")
def tile_chips(make_once: MakeOnce) -> Path:
    """Nine chips of 64 pixels with class rasters (Classified_Tiles)."""
    return make_once("tile-chips", _chips("Classified_Tiles")) / "chips"


@pytest.fixture(scope="session")
def detector_package(make_once: MakeOnce, box_chips: Path) -> Path:
    """The package of a SingleShotDetector after one epoch on :func:`box_chips`."""
    train = _trained(box_chips, "SingleShotDetector", {"backbone": "resnet18", "grids": [8]})
    return make_once("detector", train) / "model"


@pytest.fixture(scope="session")
def classifier_package(make_once: MakeOnce, tile_chips: Path) -> Path:
    """The package of a UnetClassifier after one epoch on :func:`tile_chips`."""
    return (
        make_once("classifier", _trained(tile_chips, "UnetClassifier", {"backbone": "resnet18"}))
        / "model"
    )


def _pickled(place: Path, value: object) -> None:
    (place / "made.pickle").write_bytes(pickle.dumps(value))


def _chips(dataset_type: str) -> Callable[[Path], object]:
    def make(place: Path) -> None:
        from geodl.testing import make_chips

        make_chips(place, dataset_type)

    return make


def _trained(chips: Path, name: str, arguments: dict[str, Any]) -> Callable[[Path], object]:
    def make(place: Path) -> None:
        from geodl.base.errors import OfflineWarning
        from geodl.base.models import MODELS
        from geodl.data.prepare import prepare_data

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OfflineWarning)
            model = MODELS[name](prepare_data(chips, batch_size=4, working_dir=place), **arguments)
        model.fit(1, 1e-3)
        model.save(place / "model")

    return make
