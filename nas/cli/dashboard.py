"""Optuna's dashboard of an experiment, and a page that steers it, on a port of this machine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection
from typing import Any, final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from nas.cli.catalogue import Catalogue
from nas.cli.consent import Consent
from nas.cli.control_page import CONTROL, ControlPage
from nas.cli.own_hosts import OwnHosts
from nas.errors import MissingDependency, NasValueError, explain

HOST = "127.0.0.1"
_LAST = 65535


def serve(
    catalogue: Catalogue,
    name: str,
    port: int,
    say: Callable[[str], object],
    *,
    hosts: Collection[str],
    file: str | None,
    consent: Consent,
) -> None:
    """Shows an experiment until the process is ended, and takes what is asked of it on the page `/control`.

    Args:
        catalogue: where it is kept.
        name: of the experiment.
        port: where it is shown, or the next one that is free.
        say: is told the address.
        hosts: names under which a browser may ask for it, beside those of this machine.
        file, consent: as for `ControlPage`.

    Raises:
        UnknownName: there is no such experiment.
        MissingDependency: the dashboard is not installed.
        NasValueError: no port is free from this one on, or this process may not take it.
    """
    from nas.records import Store

    path = catalogue.find(name).path
    try:
        import optuna_dashboard
    except ImportError as error:
        raise MissingDependency("optuna-dashboard", purpose="nas dashboard", extra="dashboard") from error
    inner = optuna_dashboard.wsgi(Store(catalogue.storage, path).write())
    pages = OwnHosts(ControlPage(catalogue, name, inner, file=file, consent=consent), hosts)
    free = free_port(port)
    say(f"http://{HOST}:{free}" + ("" if free == port else f" (port {port} is taken)"))
    say(f"http://{HOST}:{free}{CONTROL} changes, kills, enqueues and stops")
    with make_server(HOST, free, pages, handler_class=_Quiet) as server:
        server.serve_forever()


@final
class _Quiet(WSGIRequestHandler):
    """Says nothing of each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """For the server."""


def free_port(port: int) -> int:
    """The first free port from this one on.

    Raises:
        NasValueError: there is none, or this process may not take it.
    """
    for free in range(port, _LAST + 1):
        with socket.socket() as tried:
            # As the server does, so that one that has just ended does not keep its port.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, free))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise NasValueError(explain(f"the port cannot be taken ({error})", got=free, where="--port")) from error
            return free
    raise NasValueError(explain("no port from this one on is free", got=port, where="--port"))
