"""What tests of several rooms need: a script run in this process, and a PostgreSQL server of our own."""

from __future__ import annotations

import os
import resource
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stands in for a device is of no use where there is one."""
    for item in items:
        if torch.cuda.is_available() and item.name.startswith("nas.testing.other_device"):
            item.add_marker(pytest.mark.skip(reason="there is a CUDA device"))


@pytest.fixture
def run_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a script in an empty folder as `python SCRIPT OPTIONS` would, and yields what it prints.

    In this process, as loading torch and its company takes longer than most of the scripts.
    """

    def run(path: Path, *options: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, options)])
        monkeypatch.syspath_prepend(str(path.parent))
        capsys.readouterr()
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("default")
            runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """As on a disk that has so much room for a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server."""

    port: int

    def database(self, name: str) -> str:
        """The URL of a new database."""
        self.sql(f'CREATE DATABASE "{name}"', "postgres")
        return f"postgresql://nas@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str) -> list[Any]:
        """The rows that a statement yields."""
        import psycopg

        where = f"host=127.0.0.1 port={self.port} user=nas dbname={database}"
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]  # it asks for literals
            return [] if cursor.description is None else cursor.fetchall()


def find_programs() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them out of the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    found = str(debian[0]) if debian else shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server on a free port of this machine; its data are thrown away."""
    pytest.importorskip("psycopg", reason='needs pip install "torch-nas[postgres]"')
    programs = find_programs()
    if programs is None:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    user = "postgres" if os.getuid() == 0 else None  # It refuses to be run by root.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="nas-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"

    def call(*command: object) -> None:
        done = subprocess.run(
            list(map(str, command)), user=user, cwd=folder, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        call(programs / "initdb", "-D", data, "-U", "nas", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        call(programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-t", "120", "-o", options, "start")
        try:
            yield Server(port=port)
        finally:
            call(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
