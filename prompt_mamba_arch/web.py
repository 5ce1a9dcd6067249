"""Serving on a port: found free before anything is loaded, said in a line where it is not."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from prompt_mamba_arch.errors import UserError

__all__ = ["address", "is_loopback", "listen", "serve", "serving"]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        UserError: the port is taken or may not be used, or there is no such address here.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = {
            errno.EADDRINUSE: "another program has it; name another with --port",
            errno.EACCES: "it may not be used; name one from 1024 on with --port",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno, error.strerror or str(error))
        raise UserError(f"cannot listen on {host}, port {port}: {why}") from None


def address(listening: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _server(app: Any):
    try:
        import uvicorn
    except ImportError:
        raise UserError(
            "serving a page needs uvicorn; install it with: pip install 'prompt-mamba-arch[app]' (or [study])"
        ) from None
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, server_header=False, lifespan="on"
    )
    return uvicorn.Server(config)


def serve(app: Any, listening: socket.socket) -> None:
    """Serves an ASGI application until Ctrl-C or the end of the process is asked for."""
    _server(app).run(sockets=[listening])


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves in a thread, on a free port of this machine; yields the address."""
    listening = listen("127.0.0.1", 0)
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        if not server.started:
            raise RuntimeError("the server did not start")
        yield address(listening)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
