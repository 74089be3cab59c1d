"""Disks that are full, and directories that cannot be written."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 1.5], ids=["segment", "trace"])
def test_files_may_not_grow(host, brief, model, whole, groups, assert_same, tmp_path, share):
    """A limit of less than a segment, or between a segment and the trace."""
    limit = int(share * (whole / "segments" / "000000.nc").stat().st_size)
    assert limit < (whole / "trace.nc").stat().st_size
    out = tmp_path / "run"
    code, started = host.run("infer", model, *brief, "--out", out, file_limit=limit)
    assert code == 2, started.text
    started.assert_one_sentence("cannot be written", out)
    resumable = (out / "recipe.toml").exists()
    again = ["infer", "--resume"] if resumable else ["infer", model, *brief]
    code, started = host.run(*again, "--out", out)
    assert code == 0, started.text
    assert_same(groups(out), groups(whole))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_small_tmpfs(host, brief, model, whole, groups, assert_same, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    size = sum(path.stat().st_size for path in (whole / "segments").iterdir())
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small])
    if mounted.returncode:
        pytest.skip("this system mounts no tmpfs here")
    try:
        out = small / "run"
        code, started = host.run("infer", model, *brief, "--out", out)
        assert code == 2, started.text
        started.assert_one_sentence("cannot be written")
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        code, started = host.run("infer", "--resume", "--out", out)
        assert code == 0, started.text
        assert_same(groups(out), groups(whole))
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_directory_that_cannot_be_written(host, brief, model, finished, tmp_path):
    if os.geteuid() == 0:  # to whom permissions mean nothing, but /proc does
        closed = "/proc/run"
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        closed = tmp_path / "closed" / "run"
    code, started = host.run("infer", model, *brief, "--out", closed)
    assert code == 2
    started.assert_one_sentence("cannot be written", closed)
    code, started = host.run("report", finished, "--out", "/proc/report.html")
    assert code == 2
    started.assert_one_sentence("cannot be written", "/proc/report.html")
