"""Which port the dashboard takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from nas import NasValueError
from nas.cli.dashboard import HOST, free_port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another server has."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_passed_over(taken: int) -> None:
    free = free_port(taken)
    assert free > taken
    assert free_port(free) == free


def test_that_no_port_is_free_is_said() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, 65535))
        except OSError:
            pytest.skip("another process has the last port")
        server.listen()
        with pytest.raises(NasValueError, match="--port: no port from this one on is free; received 65535"):
            free_port(65535)
