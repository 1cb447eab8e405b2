"""The recipes under ``cluster/`` suit their readers: geodl, SLURM, the Dask operator."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from geodl.runtime.clusters import LAUNCHERS, slurm
from geodl.runtime.clusters.recipe import read_recipe
from geodl.runtime.clusters.spec import Spec

CLUSTER = Path(__file__).parents[3] / "cluster"
RECIPES = ["local.yaml", "cuda.yaml", "slurm/recipe.yaml"]
MANIFESTS = sorted((CLUSTER / "kubernetes").glob("*.yaml"))

# The parts of the schemas (Kubernetes 1.30, Dask operator 2026.3) that our manifests use:
# keys, with "!" behind those that must be there; a list stands for its items, a text for what
# values match.
QUANTITY = r"\d+(\.\d+)?(m|[KMGT]i?)?"
NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
RESOURCES = {"requests": {"cpu": QUANTITY, "memory": QUANTITY}}
RESOURCES["limits"] = {**RESOURCES["requests"], "nvidia.com/gpu": r"\d+"}
PORT = {"name!": NAME, "containerPort!": r"\d+", "protocol": "TCP|UDP"}
GET = {"path!": "/.*", "port!": NAME}
PROBE = {"httpGet!": GET, "initialDelaySeconds": r"\d+", "periodSeconds": r"\d+"}
CONTAINER = {
    "name!": NAME,
    "image!": r"[\w./-]+:[\w.-]+",
    "args": [".+"],
    "ports": [PORT],
    "env": [{"name!": r"\w+", "value!": ".*"}],
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "resources": RESOURCES,
    "volumeMounts": [{"name!": NAME, "mountPath!": "/.*"}],
}
VOLUME = {
    "name!": NAME,
    "persistentVolumeClaim": {"claimName!": NAME},
    "emptyDir": {"sizeLimit": QUANTITY},
}
POD = {"containers!": [CONTAINER], "volumes": [VOLUME], "restartPolicy": "Never|OnFailure"}
SERVICE_PORT = {"name!": NAME, "protocol": "TCP", "port!": r"\d+", "targetPort": NAME}
LABELS = {"dask.org/cluster-name": NAME, "dask.org/component": "scheduler"}
META = {"name!": NAME}
SCHEMAS: dict[tuple[str, str], dict[str, Any]] = {
    ("kubernetes.dask.org/v1", "DaskCluster"): {
        "idleTimeout": r"\d+",
        "scheduler!": {
            "spec!": POD,
            "service!": {"type": "ClusterIP", "selector!": LABELS, "ports!": [SERVICE_PORT]},
        },
        "worker!": {"replicas!": r"\d+", "spec!": POD},
    },
    ("batch/v1", "Job"): {"backoffLimit": r"\d+", "template!": {"spec!": POD}},
    ("v1", "PersistentVolumeClaim"): {
        "accessModes!": ["ReadWriteMany"],
        "storageClassName": NAME,
        "resources!": {"requests!": {"storage!": QUANTITY}},
    },
}


def faults(value: Any, schema: Any, place: str) -> Iterator[str]:
    """Where a value breaks its schema."""
    if isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for number, item in enumerate(value):
            yield from faults(item, schema[0], f"{place}[{number}]")
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{place} is no mapping"
            return
        known = {name.rstrip("!"): part for name, part in schema.items()}
        must = {name[:-1] for name in schema if name.endswith("!")}
        yield from (f"{place} lacks {name}" for name in sorted(must - set(value)))
        for name, part in value.items():
            if name not in known:
                yield f"{place}.{name} is unknown"
            else:
                yield from faults(part, known[name], f"{place}.{name}")
    elif isinstance(value, (bool, dict, list)) or not re.fullmatch(schema, str(value)):
        yield f"{place} is {value!r}, not {schema}"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_hold_options_that_their_launcher_takes(name: str) -> None:
    kind, options = read_recipe(CLUSTER / name)
    spec = Spec.of(kind, options, LAUNCHERS[kind].options)
    if kind == "slurm":
        assert slurm.job_arguments(spec)["walltime"] == "02:00:00"
    # Options that stand behind a comment are known too.
    text = re.sub(r"^  # (\w+: )", r"  \1", (CLUSTER / name).read_text(), flags=re.MULTILINE)
    Spec.of(kind, yaml.safe_load(text)["options"], LAUNCHERS[kind].options)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_follow_their_schema(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    schema = SCHEMAS[manifest["apiVersion"], manifest["kind"]]
    assert not list(faults(manifest["metadata"], META, "metadata"))
    assert not list(faults(manifest["spec"], schema, "spec"))


def test_the_schema_check_finds_faults() -> None:
    manifest = yaml.safe_load((CLUSTER / "kubernetes" / "cluster.yaml").read_text())
    worker = manifest["spec"]["worker"]
    worker["spec"]["containers"][0]["imagePullPolice"] = "Always"
    worker["spec"]["containers"][0]["env"][0]["value"] = True
    del worker["replicas"]
    schema = SCHEMAS["kubernetes.dask.org/v1", "DaskCluster"]
    assert list(faults(manifest["spec"], schema, "spec")) == [
        "spec.worker lacks replicas",
        "spec.worker.spec.containers[0].env[0].value is True, not .*",
        "spec.worker.spec.containers[0].imagePullPolice is unknown",
    ]


def test_manifests_agree_with_each_other() -> None:
    cluster, job, volume = (
        yaml.safe_load((CLUSTER / "kubernetes" / f"{name}.yaml").read_text())
        for name in ("cluster", "job", "volume")
    )
    pods = [
        cluster["spec"]["scheduler"]["spec"],
        cluster["spec"]["worker"]["spec"],
        job["spec"]["template"]["spec"],
    ]
    containers = [pod["containers"][0] for pod in pods]
    assert len({container["image"] for container in containers}) == 1
    for pod in pods:
        named = {entry["name"] for entry in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= named
        claims = [e["persistentVolumeClaim"] for e in pod["volumes"] if e["name"] == "data"]
        assert claims == [{"claimName": volume["metadata"]["name"]}]
    # The operator names the scheduler's service after the cluster.
    service = cluster["spec"]["scheduler"]["service"]
    name, port = cluster["metadata"]["name"], service["ports"][0]["port"]
    assert f"tcp://{name}-scheduler:{port}" in containers[2]["args"]
    assert service["selector"]["dask.org/cluster-name"] == name
    offered = {entry["name"] for entry in containers[0]["ports"]}
    assert {entry["targetPort"] for entry in service["ports"]} <= offered


def test_the_job_of_kubernetes_is_a_command_that_there_is() -> None:
    from geodl.cli.main import _parser

    job = yaml.safe_load((CLUSTER / "kubernetes" / "job.yaml").read_text())
    command = job["spec"]["template"]["spec"]["containers"][0]["args"]
    options = _parser(command[1:]).parse_args(command[1:])
    assert options.connect_to == "tcp://geodl-scheduler:8786"
    assert options.output_name == "/data/products/buildings.tif"


def test_the_image_is_built_from_files_that_are_there() -> None:
    text = (CLUSTER / "kubernetes" / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    root = CLUSTER.parent
    assert copied
    assert [name for names in copied for name in names if not (root / name).exists()] == []


@pytest.mark.parametrize(
    "script", [CLUSTER / "slurm" / "job.sh", *sorted(CLUSTER.parent.glob("tests/slurm/*.sh"))],
    ids=lambda path: path.name,
)  # fmt: skip
def test_scripts_are_executable_and_parse(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    shell = "bash" if script.read_text().startswith("#!/bin/bash") else "sh"
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    subprocess.run([shell, "-n", script], check=True)
