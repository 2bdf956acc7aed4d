"""Connections: one thread waits for the bytes of all of them, others answer whole requests.

A client that sends a byte a second, or greets and falls silent, costs a file descriptor and never a
thread that answers. What h11 calls no HTTP is refused; a body is read to its end before the
application sees anything, and only if the head shows the token.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import h11

from .budget import MemoryBudget, Reservation
from .config import Limits
from .problems import ProblemError
from .wsgi import Answer, Application, Head, Refuse, call, head_of

_LOG = logging.getLogger(__name__)

_HEAD_BYTES_MAX = 64 << 10
_READ_BYTES = 64 << 10
_BACKLOG = 512

_ACCEPT_AGAIN_SECONDS = 0.2
"""Pause after the system had no room for another connection."""

_LINGER_SECONDS, _LINGER_BYTES = 1.0, 4 << 20
"""How long and how much of an unwanted body is still read, or its client would not see the
answer."""

_NO_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This server speaks TLS: begin its address with https.\n"
)


@dataclass(frozen=True)
class FrontConfig:
    """Settings of the part in front of an application.

    Attributes:
        app: answers requests, in a thread.
        refuse: looks at a request's head; if the application will refuse it for that, its body is
            not read.
        budget: memory that bodies take from as they come.
        threads: number of threads that answer.
        tls: TLS context; None for plain HTTP.
    """

    app: Application
    refuse: Refuse
    limits: Limits
    budget: MemoryBudget
    threads: int
    tls: ssl.SSLContext | None = None


class Front:
    """Serves an open socket from a thread of its own.

    Args:
        listener: bound and listening; closed by :meth:`stop`.
    """

    def __init__(self, listener: socket.socket, config: FrontConfig) -> None:
        self._listener, self._config = listener, config
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(_tell)
        self._workers = ThreadPoolExecutor(config.threads, thread_name_prefix="request")
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)

    def start(self) -> None:
        """Accept connections from now on."""
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Accept nothing more, let answers that are under way end, and close all connections."""
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._stop(seconds)))
        self._thread.join(seconds + 1)
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._accepting = self._loop.create_task(self._accept())
        self._loop.run_forever()
        self._loop.close()

    async def _stop(self, seconds: float) -> None:
        self._accepting.cancel()
        end = self._loop.time() + seconds
        while any(one.is_answering for one in self._connections) and self._loop.time() < end:
            await asyncio.sleep(0.02)
        left = dict(self._connections)
        for connection in left:
            connection.abort()
        await asyncio.wait([self._accepting, *left.values()], timeout=0.5)
        self._loop.stop()

    async def _accept(self) -> None:
        while True:
            try:
                client, address = await self._loop.sock_accept(self._listener)
            except OSError as exc:  # no file descriptor is left, or the client left in the queue
                _LOG.warning("No connection could be accepted: %s", exc)
                self._make_room()
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue
            if len(self._connections) >= self._config.limits.connections:
                self._make_room()
            connection = _Connection(client, address[0], self._config, self._workers)
            task = self._loop.create_task(connection.serve())
            self._connections[connection] = task
            task.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: _Connection, _: object) -> None:
        self._connections.pop(connection, None)

    def _make_room(self) -> None:
        """Close the connection that waits for bytes, and has been open for the longest time."""
        for connection in self._connections:
            if not connection.is_answering:
                del self._connections[connection]
                connection.abort()
                return


class _Connection:
    """The connection of one client."""

    def __init__(
        self,
        client: socket.socket,
        address: str,
        config: FrontConfig,
        workers: ThreadPoolExecutor,
    ) -> None:
        self._socket, self._address, self._config = client, address, config
        self._limits, self._workers = config.limits, workers
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)
        self._reader = asyncio.StreamReader(_READ_BYTES)
        self._writer: asyncio.StreamWriter | None = None
        self._has_answered = False
        self.is_answering = False

    def abort(self) -> None:
        """Close the connection at once."""
        if self._writer is None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._writer.transport.abort()

    async def serve(self) -> None:
        """Answer requests until either side ends the connection."""
        try:
            await self._open()
            while await self._exchange():
                self._http.start_next_cycle()
            await self._linger()
        except (OSError, h11.LocalProtocolError):  # it left, in whatever manner
            pass
        except (h11.RemoteProtocolError, ValueError) as exc:  # ValueError: absurdly long numbers
            with suppress(OSError, h11.LocalProtocolError):
                await self._say(getattr(exc, "error_status_hint", 400), str(exc))
                await self._linger()
        finally:
            await self._close()

    async def _open(self) -> None:
        protocol = asyncio.StreamReaderProtocol(self._reader)
        spare = self._socket.dup() if self._config.tls else None
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol,
                self._socket,
                ssl=self._config.tls,
                ssl_handshake_timeout=self._limits.head_seconds if self._config.tls else None,
            )
        except ssl.SSLError as exc:
            if exc.reason == "HTTP_REQUEST" and spare is not None:
                with suppress(OSError):
                    spare.send(_NO_TLS)
            raise
        finally:
            if spare is not None:
                spare.close()
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, self._loop)

    async def _exchange(self) -> bool:
        """Answer one request; returns whether another one may follow."""
        head = await self._head()
        if head is None:
            return False
        self.is_answering = True  # and not to be closed for others
        try:
            with self._config.budget.reservation() as memory:
                try:
                    body = await self._body(head, memory)
                except ProblemError as problem:
                    await self._say(problem.status, problem.detail, dict(problem.headers))
                    return False
                if body is None:
                    return False
                await self._answer(head, body)
        finally:
            self.is_answering = False
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _head(self) -> Head | None:
        """Read the head of the next request, but not its body; None if there is none."""
        limits = self._limits
        if not self._http.trailing_data[0]:
            # A new connection is to be used at once.
            seconds = limits.idle_seconds if self._has_answered else limits.head_seconds
            with self._at_most(seconds):
                self._http.receive_data(await self._reader.read(_READ_BYTES))
        with self._at_most(limits.head_seconds):
            event = await self._event()
        return head_of(event, self._address) if isinstance(event, h11.Request) else None

    async def _body(self, head: Head, memory: Reservation) -> bytes | None:
        """Read the body as far as the application wants it; None if it does not come."""
        if self._config.refuse(head) or (head.length or 0) > self._limits.body_bytes:
            return b""
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        self.is_answering = False
        came = bytearray()
        began = self._loop.time()
        while True:
            until = (
                began + self._limits.body_seconds + len(came) / self._limits.body_bytes_per_second
            )
            with self._at_most(until - self._loop.time()):
                event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                break
            if not isinstance(event, h11.Data):
                return None
            memory.grow(len(event.data))
            came += event.data
            if len(came) > self._limits.body_bytes:
                break
        self.is_answering = True
        return bytes(came)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def _answer(self, head: Head, body: bytes) -> None:
        self._has_answered = True
        is_whole = self._http.their_state is h11.DONE

        def send(event: h11.Event) -> None:
            """Send from one of the answering threads."""
            if self._loop.is_closed():
                raise ConnectionResetError
            asyncio.run_coroutine_threadsafe(self._send(event), self._loop).result()

        answer = Answer(send, self._is_gone, may_go_on=is_whole)
        await self._loop.run_in_executor(
            self._workers, call, self._config.app, head, body, answer, self._is_tls
        )

    @property
    def _is_tls(self) -> bool:
        return self._config.tls is not None

    def _is_gone(self) -> bool:
        """Whether the client has closed the connection after sending a whole request."""
        assert self._writer is not None
        return self._reader.at_eof() or self._writer.transport.is_closing()

    async def _send(self, event: h11.Event) -> None:
        assert self._writer is not None
        data = self._http.send(event)
        if self._writer.transport.is_closing():
            raise ConnectionResetError
        if data:
            self._writer.write(data)
            with self._at_most(self._limits.body_seconds):
                await self._writer.drain()

    async def _say(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        """Send an answer of this module's own."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        content = f"{text.rstrip('.')}.\n".encode("utf-8", "replace")
        about = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(content)),
            "Connection": "close",
            **(headers or {}),
        }
        reason = HTTPStatus(status).phrase
        await self._send(
            h11.Response(status_code=status, headers=list(about.items()), reason=reason)
        )
        await self._send(h11.Data(data=content))
        await self._send(h11.EndOfMessage())

    async def _linger(self) -> None:
        """Read some of what still comes: closing earlier would take the answer back."""
        with suppress(OSError), self._at_most(_LINGER_SECONDS):
            assert self._writer is not None
            if self._writer.can_write_eof():
                self._writer.write_eof()
            left = _LINGER_BYTES
            while left > 0 and (data := await self._reader.read(_READ_BYTES)):
                left -= len(data)

    async def _close(self) -> None:
        if self._writer is None:
            self._socket.close()
            return
        self._writer.close()
        with suppress(OSError), self._at_most(_LINGER_SECONDS):
            await self._writer.wait_closed()

    @contextmanager
    def _at_most(self, seconds: float) -> Iterator[None]:
        """Close the connection if the ``with`` block takes longer."""
        timer = self._loop.call_later(max(0.0, seconds), self.abort)
        try:
            yield
        finally:
            timer.cancel()


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Print an error that nobody else would see; clients that leave are no news."""
    error = context.get("exception")
    if not isinstance(error, OSError):  # ssl.SSLError is one
        _LOG.error("%s", context.get("message"), exc_info=error if error else None)  # type: ignore[arg-type]
