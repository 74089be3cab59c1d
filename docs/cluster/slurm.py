"""Workers for pyro_bnn on a Slurm cluster, one GPU and one task each.

Run on a login node, from the directory of your model script, for as long as the run takes:

    python slurm.py --workers 100 --partition gpu -- models/mine.py --recipe mine.toml --out one

What follows ``--`` is handed to ``pyro-bnn infer``. ``--dry-run`` prints the job of a worker and
submits nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import dask
from dask_jobqueue import SLURMCluster


def cluster(given: argparse.Namespace) -> SLURMCluster:
    """Describe a worker's job; nothing is submitted before `scale` or `adapt`."""
    # Preempted jobs count as failures of the task that they had: let them be many.
    dask.config.set({"distributed.scheduler.allowed-failures": 1_000})
    gpus = ["--gres=gpu:1"] if given.gpu else []
    return SLURMCluster(
        queue=given.partition,
        account=given.account,
        cores=1,  # one task at a time
        processes=1,
        job_cpu=given.cpus,
        memory=given.memory,
        walltime=given.walltime,
        interface=given.interface,
        python=sys.executable,
        job_extra_directives=["--requeue", *gpus],
        worker_extra_args=["--resources", "GPU=1", "--memory-limit", "0"] if given.gpu else [],
        job_script_prologue=["export OMP_NUM_THREADS=1"],
    )


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8, help="jobs at most")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--memory", default="16GB")
    parser.add_argument("--walltime", default="08:00:00")
    parser.add_argument("--interface", help="network of the cluster, such as ib0")
    parser.add_argument("--no-gpu", dest="gpu", action="store_false")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("infer", nargs="*", help="arguments of pyro-bnn infer")
    return parser.parse_args(words)


def main() -> None:
    """Start workers as the queue lets them, run, and let them go."""
    given = parse(sys.argv[1:])
    with cluster(given) as workers:
        if given.dry_run:
            print(workers.job_script())
            return
        # Adapting, unlike scaling once, replaces jobs that end or are preempted.
        workers.adapt(minimum_jobs=1, maximum_jobs=given.workers)
        command = ["pyro-bnn", "infer", *given.infer, "--scheduler", workers.scheduler_address]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
