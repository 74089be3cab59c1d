"""The files for clusters are read, and what they would run is checked; nothing is submitted."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import dask_kubernetes
import jsonschema
import pytest
import typer.main
import yaml
from dask_kubernetes.operator import make_cluster_spec
from distributed.cli.dask_worker import main as dask_worker

from pyro_bnn.infer.cli.app import app
from pyro_bnn.infer.distributed.scheduler import GPU

FOLDER = Path(__file__).parents[3] / "docs" / "cluster"


def infer_options():
    found = typer.main.get_command(app).commands["infer"].params
    return {option for parameter in found for option in parameter.opts}


def assert_known(line):
    """Check that a line that calls ``pyro-bnn infer`` gives options that there are."""
    words = line.partition("pyro-bnn infer ")[2].split()
    assert {word for word in words if word.startswith("--")} <= infer_options()


def assert_worker(words):
    """Check the arguments of ``dask worker``: one task at a time, and a GPU for it."""
    known = {option for parameter in dask_worker.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert words[words.index("--nthreads") + 1] == "1"
    assert words[words.index("--resources") + 1] == f"{GPU}=1"


@pytest.fixture(scope="module")
def slurm():
    spec = importlib.util.spec_from_file_location("slurm_cluster_script", FOLDER / "slurm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("gpu", [True, False])
def test_the_slurm_job_of_a_worker(slurm, gpu, tmp_path):
    words = ["--partition", "fast", "--workers", "3", *([] if gpu else ["--no-gpu"])]
    with slurm.cluster(slurm.parse([*words, "--", "m.py", "--out", "o"])) as workers:
        script = workers.job_script()
    assert "#SBATCH -p fast" in script
    assert "#SBATCH --requeue" in script
    assert ("#SBATCH --gres=gpu:1" in script) == gpu
    if gpu:
        assert_worker(re.search(r"dask_worker (.*)$|dask worker (.*)$", script, re.M)[0].split())
    file = tmp_path / "job.sh"
    file.write_text(script)
    subprocess.run(["bash", "-n", file], check=True)


def test_the_sbatch_script():
    path = FOLDER / "slurm.sbatch"
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    assert_known(re.search(r"^pyro-bnn infer .*$", text, re.M)[0])
    assert_worker(re.search(r"srun (dask worker .*) &$", text, re.M)[1].split())
    directives = re.findall(r"^#SBATCH --([a-z-]+)=", text, re.M)
    assert {"ntasks", "gpus-per-task", "time"} <= set(directives)


def operator_schema():
    """Return what the operator's definition of a ``DaskCluster`` demands."""
    folder = Path(dask_kubernetes.__file__).parent / "operator" / "deployment" / "helm"
    text = (folder / "dask-kubernetes-operator" / "crds" / "daskcluster.yaml").read_text("utf-8")
    return yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_the_operators_schema_refuses_what_it_does_not_know():
    text = (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")
    _, cluster, _ = yaml.safe_load_all(text)
    cluster["spec"]["worker"]["replicas"] = "many"
    with pytest.raises(jsonschema.ValidationError, match="'many' is not of type 'integer'"):
        jsonschema.validate(cluster, operator_schema())


def test_the_kubernetes_objects():
    text = (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")
    claim, cluster, job = yaml.safe_load_all(text)
    assert [one["kind"] for one in (claim, cluster, job)] == [
        "PersistentVolumeClaim",
        "DaskCluster",
        "Job",
    ]
    jsonschema.validate(cluster, operator_schema())
    made = make_cluster_spec(cluster["metadata"]["name"])
    assert cluster["apiVersion"] == made["apiVersion"]
    assert cluster["spec"]["scheduler"]["service"] == made["spec"]["scheduler"]["service"]
    for part in ("worker", "scheduler"):
        ours, theirs = (one["spec"][part]["spec"]["containers"][0] for one in (cluster, made))
        assert ours["name"] == theirs["name"]
        assert ours["ports"] == theirs["ports"]
    worker = cluster["spec"]["worker"]["spec"]
    assert_worker(worker["containers"][0]["args"])
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    pod = job["spec"]["template"]["spec"]
    script = pod["containers"][0]["args"][0]
    subprocess.run(["bash", "-n", "-c", script], check=True)
    assert_known(re.search(r"pyro-bnn infer .*", script.replace("\\\n", " "))[0])
    assert "tcp://pyro-bnn-scheduler:8786" in script
    for spec in (worker, pod):
        mounts = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts == {volume["name"] for volume in spec["volumes"]}
        assert spec["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
