"""Access control: checks of the token and of the Host header."""

from __future__ import annotations

import hmac
import re
import secrets
import socket
from ipaddress import ip_address

from .config import ServerConfig, is_loopback
from .problems import ProblemError
from .tokens import read_names

THIS_COMPUTER = "this-computer"
"""Name of a client that uses the connection file, if other clients have names."""

SAMAPI_PATH = "/sam"
SAMAPI_CLIENT = "sam-extension"
"""Path of the SAM extension's requests, and its name in the log."""

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]/?#@\s]+)(:\d{1,5})?")
_BEARER = re.compile(r"bearer +(?P<token>[!-~]+) *", re.IGNORECASE)


def make_token() -> str:
    """Make a random token of 256 bits."""
    return secrets.token_urlsafe(32)


def check_token(authorization: str | None, config: ServerConfig) -> str:
    """Check that a request has a token; return the name of the client that it belongs to.

    Returns:
        Empty where all clients share one token.

    Raises:
        ProblemError: ``unauthorized``.
    """
    names = {config.token: ""}
    if config.names_file is not None:
        names = {**read_names(config.names_file), config.token: THIS_COMPUTER}
    shown = _BEARER.fullmatch(authorization or "")
    # All of them, so that the time tells nothing.
    found = [
        name
        for token, name in names.items()
        if shown and hmac.compare_digest(shown["token"], token)
    ]
    if not found:
        raise ProblemError(
            "unauthorized",
            "The token is missing or wrong. The server printed it when it started, or its "
            "administrator gave you one; enter it in QuPath under Extensions > WSI-SAM > Settings.",
            headers={"WWW-Authenticate": 'Bearer realm="wsisam-qupath"'},
        )
    return found[0]


def is_samapi(path: str, config: ServerConfig) -> bool:
    """Whether a path belongs to the SAM extension's requests, and this server answers them."""
    return config.samapi != "off" and (path == SAMAPI_PATH or path.startswith(f"{SAMAPI_PATH}/"))


def check_samapi(address: str | None, host: str | None, config: ServerConfig) -> str:
    """Check that a client without a token may use the routes of the SAM extension.

    Args:
        address: address of the client.
        host: name by which the client calls, which a proxy on this computer passes on.

    Returns:
        The name of such clients in the log.

    Raises:
        ProblemError: ``unauthorized``.
    """
    called = _HOST.fullmatch(host or "")
    is_called_local = called is not None and is_loopback(called["name"].strip("[]"))
    if config.samapi == "open" or (is_called_local and is_loopback(address or "")):
        return SAMAPI_CLIENT
    raise ProblemError(
        "unauthorized",
        "The SAM extension sends no token, so this server answers it on its own computer only. "
        "Use an SSH tunnel, or let everyone who reaches the server use it (samapi_open).",
    )


def check_host(host: str | None, config: ServerConfig) -> None:
    """Check that the Host header is a name of this server.

    A page on the web can have a name of its own point to this computer, and then ask us in the
    user's browser; but the name stays in the request.

    Raises:
        ProblemError: ``forbidden-host``.
    """
    called = _HOST.fullmatch(host or "")
    if called is not None and _is_own(called["name"].strip("[]").lower(), config):
        return
    raise ProblemError(
        "forbidden-host",
        "This server does not know that name as its own. Use its address, or add the name when the "
        "server is started.",
    )


def _is_own(name: str, config: ServerConfig) -> bool:
    try:
        address = ip_address(name)
    except ValueError:
        return name in _list_own_names(config)
    return address.is_loopback or not config.is_loopback


def _list_own_names(config: ServerConfig) -> set[str]:
    names = {"localhost", *map(str.lower, config.names)}
    if not config.is_loopback:
        names |= {config.host.lower(), socket.gethostname().lower()}
    return names
