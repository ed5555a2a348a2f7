"""The real command on a toy cluster, and what it said: for tests of errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from attrs import frozen

from bladeroot.host.depot import Depot
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster, make_toy_cluster

TIMEOUT_S = 120.0


@frozen
class Ran:
    code: int
    error: str
    """The whole line: what went wrong, and the hint."""
    events: tuple[dict[str, object], ...]


@frozen
class Bench:
    """The toy cluster and the command, for one test."""

    toy: ToyCluster
    work: Path

    def command(self, *words: object, as_user: Sequence[str] = ()) -> list[str]:
        key, depot = self.toy.folder.path.parent / "operator.key", self.toy.depot.path
        common = ["--json", "--cluster", self.toy.folder.path, "--depot", depot, "--key", key]
        return [*as_user, sys.executable, "-m", "bladeroot", *map(str, [*common, *words])]

    def run(self, *words: object, as_user: Sequence[str] = (), **environment: str) -> Ran:
        ran = subprocess.run(
            self.command(*words, as_user=as_user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, **environment},
            check=False,
        )
        return read_ran(ran.returncode, ran.stderr)

    def install(self, *words: object, **environment: str) -> Ran:
        return self.run(
            "install", "--blade", "web01", "--yes", "--from-depot", self.toy.depot.path, *words, **environment
        )

    def disk(self, name: str = "disk", size_bytes: int = DISK_SIZE_BYTES) -> Path:
        return self.toy.make_disk(self.work / name, size_bytes)


def read_ran(code: int, stderr: str) -> Ran:
    """Every line is an event; the last is the error, if there was one. A traceback is neither."""
    events = [json.loads(line) for line in stderr.splitlines()]
    error = ""
    if code:
        last = events.pop()
        assert last["exit_code"] == code, stderr
        assert "\n" not in last["error"]
        assert "this is a bug" not in last["error"]
        error = f"{last['error']} ({last['hint']})"
    return Ran(code, error, tuple(events))


@pytest.fixture(scope="module", name="toy")
def make_toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    return make_toy_cluster(tmp_path_factory.mktemp("toy"))


@pytest.fixture(name="bench")
def make_bench(toy: ToyCluster, tmp_path: Path) -> Bench:
    return Bench(toy, tmp_path)


@pytest.fixture(name="own")
def make_own(toy: ToyCluster, tmp_path: Path) -> Bench:
    """A copy of the cluster, to be spoilt."""
    folder, depot = tmp_path / "own/cluster", tmp_path / "own/depot"
    shutil.copytree(toy.folder.path, folder)
    shutil.copytree(toy.depot.path, depot)
    shutil.copy2(toy.folder.path.parent / "operator.key", tmp_path / "own/operator.key")
    return Bench(
        attrs.evolve(toy, folder=attrs.evolve(toy.folder, path=folder), depot=Depot(depot)), tmp_path
    )
