"""Run ``serve``: the HTTP server, until a signal ends it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flask import Flask

from ..errors import OptionError, OutputError, WsiSamError
from ..files import check_writable
from ..files.formats import CONNECTION
from ..inference.loading import resolve
from ..inference.segmenter import Segmenter
from ..model.bases import find_base
from ..options import ModelSpec
from ..report.progress import MessageConsole, show_progress, stderr_console
from .app import create_app
from .budget import MemoryBudget
from .config import DEFAULT_PORT, Limits, SamapiAccess, ServerConfig, is_loopback
from .connection_file import OWN_FOLDER, remove_stale
from .jobs.queue import JobQueue
from .jobs.routes import project_jobs
from .jobs.training import Training
from .jobs.training_routes import make_training_routes
from .loading import ModelLoader, start_in_turn
from .metrics import Metrics
from .queue import DeviceQueue
from .samapi.routes import SINGLE_RESOLUTION, make_samapi_routes
from .security import SAMAPI_PATH, make_token
from .service import Service
from .serving import listening
from .slides import Slides
from .tokens import holds_names, is_token, parse_names, read_token_text


@dataclass(frozen=True)
class ServeRequest:
    """The options of ``serve``, under the names that they have on the command line.

    Attributes:
        models: models to offer; the first answers unless a request names another, by its adapter.
        stop_with_input: whether to stop when the standard input ends.
        samapi, samapi_open: whether the SAM extension is answered, and whether on other computers
            too.
    """

    models: tuple[ModelSpec, ...] = (ModelSpec(),)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    names: tuple[str, ...] = ()
    token_file: Path | None = None
    slides: tuple[Path, ...] = ()
    maps: tuple[tuple[str, str], ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_body_mib: int = 64
    max_prompts: int = 5_000
    max_requests: int = 32
    max_seconds: float = 300.0
    max_memory_mib: int = 768
    stop_with_input: bool = False
    samapi: bool = False
    samapi_open: bool = False

    @property
    def samapi_access(self) -> SamapiAccess:
        """Who may use the routes of the SAM extension."""
        if not self.samapi:
            return "off"
        return "open" if self.samapi_open else "local"

    @property
    def limits(self) -> Limits:
        """Limits of one request."""
        return Limits(
            body_bytes=self.max_body_mib << 20,
            prompts=self.max_prompts,
            requests_at_once=self.max_requests,
            request_seconds=self.max_seconds,
            memory_bytes=self.max_memory_mib << 20,
        )


@dataclass(frozen=True)
class ServerParts:
    """The parts of a server that does not listen yet.

    Attributes:
        loaders: loaders of all models, by the names that requests use; others may be added, which
            are loaded on demand.
    """

    config: ServerConfig
    metrics: Metrics
    console: MessageConsole
    service: Service
    loaders: dict[str, ModelLoader]

    def run(
        self,
        app: Flask,
        *,
        before_models: Callable[[], None] = lambda: None,
        on_start: Callable[[str], None] = lambda _url: None,
        finish: Callable[[], None] = lambda: None,
        stop_with_input: bool = False,
    ) -> None:
        """Listen, load the models, and answer until a signal ends it.

        Args:
            before_models: called before the models are loaded, in the thread that loads them.
            on_start: called with the URL once requests are answered.
            finish: ends what runs beside requests, when the server stops.

        Raises:
            OptionError: the address, the port or the certificate cannot be used.
            OutputError: the connection file cannot be written.
        """
        device_queue = self.service.device_queue

        def end() -> None:
            finish()
            device_queue.close(self.config.limits.stop_seconds)

        with listening(app, self.config, device_queue.budget) as server:
            loaders = [one for one in self.loaders.values() if not one.is_on_demand]
            start_in_turn(loaders, before_models)
            server.run(end, on_start=on_start, stop_with_input=stop_with_input)
        if any(loader.is_busy for loader in self.loaders.values()):
            # The end of Python would pull the runtime from under the thread that loads, and crash.
            sys.stderr.flush()
            os._exit(0)


def make_parts(request: ServeRequest) -> ServerParts:
    """Make the parts of a server.

    Raises:
        OptionError: something about the options; see their messages.
        OutputError: the folder of the connection file cannot be made.
    """
    config = _config(request)
    _warn(config)
    find_base(request.models[0].base)
    metrics = Metrics()
    budget = MemoryBudget(config.limits.memory_bytes)
    device_queue = DeviceQueue(config.limits.requests_at_once, metrics.observe_wait, budget)
    metrics.watch(device_queue)
    console = stderr_console(as_log=True)
    loaders = {
        _name(model): ModelLoader(partial(_load, model, metrics, console))
        for model in request.models
    }
    models = next(iter(loaders.values()))
    service = Service(models, Slides(config), device_queue, config.limits, loaders)
    return ServerParts(config, metrics, console, service, loaders)


def run_serve(request: ServeRequest) -> None:
    """Serve until a signal ends it.

    Raises:
        OptionError: something about the options; see their messages.
        OutputError: the connection file cannot be written.
    """
    parts = make_parts(request)
    own = _make_own_folder()

    def offer(adapter: Path) -> None:
        model = replace(request.models[0], adapter=adapter)
        load = partial(_load, model, parts.metrics, parts.console)
        parts.loaders[_name(model)] = ModelLoader(load, on_demand=True)

    jobs, job_routes = project_jobs(parts.service, parts.config, own / "jobs")
    training = Training(request.models[0], own, offer)
    training.offer_earlier()
    budget = parts.service.device_queue.budget
    routes = [job_routes, make_training_routes(training, parts.config, budget)]
    if request.samapi:
        routes.append(make_samapi_routes(parts.service, parts.config))
    app = create_app(parts.service, parts.config, *routes, metrics=parts.metrics)

    def start(url: str) -> None:
        if request.samapi:
            _say(f"{SINGLE_RESOLUTION} Its server URL is {url}{SAMAPI_PATH}/")
        jobs.start()

    parts.run(
        app,
        on_start=start,
        finish=partial(_finish, jobs, training),
        stop_with_input=request.stop_with_input,
    )


def _name(model: ModelSpec) -> str:
    """Name a model as requests do."""
    if model.adapter is None:
        return "none"
    return model.adapter if isinstance(model.adapter, str) else model.adapter.stem


def _load(model: ModelSpec, metrics: Metrics, console: MessageConsole) -> Segmenter:
    """Load the model and tell the user."""
    try:
        with show_progress(console, "Loading the model (the first start prepares it)"):
            segmenter = Segmenter(resolve(model).load(), tally=metrics.tally)
    except WsiSamError as exc:
        _say(f"The model cannot be loaded: {exc} Then start the server again.")
        raise
    predictor = segmenter.predictor
    adapter = predictor.adapter.name if predictor.adapter else "no adapter"
    _say(f"Ready: {predictor.base.name} with {adapter}, {predictor.backend.name}.")
    return segmenter


def _finish(jobs: JobQueue, training: Training) -> None:
    """Stop jobs before running requests are finished; they continue when a server starts again."""
    training.stop()
    jobs.stop()


def _make_own_folder() -> Path:
    """Make the folder of a server's private files."""
    return _make_private_folder(OWN_FOLDER.expanduser())


def _make_private_folder(folder: Path) -> Path:
    """Make a folder that only its user may look into."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as exc:
        raise OutputError(f"{folder} cannot be made ({exc}): allow writing there.") from exc
    return folder


def _config(request: ServeRequest) -> ServerConfig:
    if (request.tls_cert is None) != (request.tls_key is None):
        missing = "tls_cert" if request.tls_cert is None else "tls_key"
        raise OptionError(missing, "TLS needs both a certificate and its key.")
    if request.samapi_open and not request.samapi:
        raise OptionError("samapi_open", "it says who else is answered: choose samapi, too.")
    for folder in request.slides:
        if not folder.is_dir():
            raise OptionError("slides", f"there is no folder {folder}.")
    path, token, names_file = _token(request.token_file)
    is_lasting = request.token_file is not None and not names_file and path != request.token_file
    return ServerConfig(
        token=token,
        host=request.host,
        port=request.port,
        names=request.names,
        slides=tuple(folder.absolute() for folder in request.slides),
        maps=request.maps,
        names_file=names_file,
        connection_file=path,
        prints_token=not is_lasting,
        tls_cert=request.tls_cert,
        tls_key=request.tls_key,
        samapi=request.samapi_access,
        limits=request.limits,
    )


def _token(file: Path | None) -> tuple[Path, str, Path | None]:
    """Choose the connection file, the token, and the file with tokens of other names.

    A file with a token, or with names, is only read.

    Raises:
        OptionError: the file holds something else.
        FormatError: it is the connection file of a newer version of this program.
    """
    if file is None:
        return _own_connection_file(), make_token(), None
    text = read_token_text(file)
    if not text or text.startswith("{"):  # nothing, or what an earlier server left
        check_writable(file)
        _check_connection_format(file, text)
        return file, make_token(), None
    if holds_names(text):
        _, wrong = parse_names(text)
        if wrong:
            raise OptionError(
                "token_file",
                f"{file}, line {wrong[0]}: write a name without spaces and a token of at least 16 "
                "letters and digits, each of them once.",
            )
        return _own_connection_file(), make_token(), file.absolute()
    if not is_token(text):
        raise OptionError(
            "token_file",
            f"{file} holds no token: write at least 16 letters and digits in one line into it, or "
            "a line with name and token for each client, or remove it to get a new one.",
        )
    return _own_connection_file(), text, None


def _check_connection_format(file: Path, text: str) -> None:
    with suppress(ValueError, AttributeError, RecursionError):  # damaged: nobody's any more
        CONNECTION.check(file, json.loads(text))


def _own_connection_file() -> Path:
    """Choose the connection file of this process; those of killed servers are removed."""
    folder = _make_private_folder(_make_own_folder() / "servers")
    remove_stale(folder)
    return folder / f"{os.getpid()}.json"


def _warn(config: ServerConfig) -> None:
    """Warn about what others on the network can do."""
    if is_loopback(config.host) or config.tls_cert is not None:
        return
    _say(
        f"WARNING: {config.host} can be reached from other computers, and the connection is not "
        "encrypted: anyone on the network can read the token and the tissue. Give a TLS "
        "certificate and its key, or listen at 127.0.0.1 and let clients use an SSH tunnel."
    )


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201
