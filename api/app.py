"""The application: the table of endpoints as routes, and the short way past Falcon for answers that are there already.

    request -> exactly this path and query known, and its source unchanged? -> answer
            -> Falcon: path, method, parameters -> cache by canonical key -> build from rings and documents

`create_app` builds from what it is given; `get_app` is what gunicorn's workers call, each for itself after the fork.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from importlib import metadata
from typing import Any, Final

import falcon.asgi

from api.access import Access, Admission, rules_of
from api.admin import AdminListener
from api.bars import CandleBars
from api.basis import SymbolCoverage
from api.bodies import Headers, Response, wire
from api.cache import Builder, Cache
from api.clock import Clock
from api.context import Context, Lifetime
from api.depth import DepthFrames
from api.encoder import Encoder
from api.endpoints import ENDPOINTS, routes
from api.errors import ALLOWED_METHODS, NO_STORE, ApiError, not_found
from api.feeds import Feeds
from api.gate import ADMISSION, adding, make_private, merged, overloaded, refusal
from api.health import Health
from api.hooks import BEGAN_NS, NOSNIFF, REQUEST_ID, Around, access, install_errors, request_ids
from api.liquidations import LiquidationRows
from api.maps import MapFrames
from api.media import JsonHandler
from api.memory import MemoryWatch
from api.metrics import Lane, Meter, lane_count
from api.metrics_scrape import Scrape
from api.oi import OpenInterest
from api.push import stream, websocket
from api.push.hub import Hub
from api.push.reply import SOCKET_PATHS, STREAM_PATHS, Reply, peer_of
from api.resources.data import target_of
from api.settings import read_settings, settings_path
from api.sources import Sources
from api.web_files import WebFiles
from mpengine.config import Settings
from mpengine.heatmap import Mix
from shm.board_words import Word

TURN_S: Final = 1.0

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
OnTurn = Callable[[Mapping[Word, int], Mapping[Word, int]], None]

log = logging.getLogger("api.app")


class Service:
    """The ASGI callable of one worker.

    `on_turn(totals, levels)` is called once a second from the loop with the words of the board row; `on_stop()` when the worker
    leaves; `on_swollen()` when it should, since its memory stays above its limit. They do nothing unless a worker sets them.
    """

    def __init__(self, context: Context) -> None:
        self.settings = context.settings
        self.context = context
        self.meter = context.meter
        self.on_turn: OnTurn = lambda _totals, _levels: None
        self.on_stop: Callable[[], None] = lambda: None
        self.on_swollen: Callable[[], None] = lambda: None
        self._cache = context.cache
        self._accepted = context.encoder.accepted
        self._clock = context.clock
        self._health = Health(context)
        self._ids = request_ids()
        self._lane = Lane(context.settings.paths, self.meter, lane_count(context.settings.api.workers))
        self._admin = AdminListener(context.settings, Scrape(context, self._health))
        self._access = context.access
        self._memory = MemoryWatch(context.settings.api.worker_memory_bytes, context.lifetime, context.cache.clear)
        self.hub = Hub(context, self._health)
        self._reply = Reply(self.meter, self._ids)
        self._falcon = self._build_falcon()

    def _build_falcon(self) -> falcon.asgi.App[Any, Any]:
        app = falcon.asgi.App(middleware=[Around(self.meter, self._ids)])
        app.req_options.strip_url_path_trailing_slash = True
        app.resp_options.media_handlers[falcon.MEDIA_JSON] = JsonHandler()
        install_errors(app)
        for paths, resource in routes(self.context, self._health):
            for path in paths:
                app.add_route(path, resource)
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            scope[BEGAN_NS] = self.meter.now_ns()
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] in SOCKET_PATHS:
            overload = self._overload(target_of(scope))
            await websocket.serve(self.hub, self._access, self._reply, overload, scope, receive, send)
        else:
            await receive()
            admission = self._access.admit(target_of(scope), scope["headers"], peer_of(scope))
            await self._reply.error(send, admission.error or not_found(), admission.headers, socket=True)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, admitted already or not."""
        target, method, peer = target_of(scope), scope["method"], peer_of(scope)
        admission: Admission | None = scope.get(ADMISSION)
        if admission is None:
            if method == "OPTIONS" and (asked := self._access.preflight(scope["headers"], peer)) is not None:
                await self._preflight(asked, scope, send)
                return
            admission = scope[ADMISSION] = self._access.admit(target, scope["headers"], peer)
        if admission.error is None and method in ("GET", "HEAD") and await self._known(target, admission, scope, send):
            return
        error = admission.error or self._overload(target)
        if error is not None:
            await self._send(self._refused(target, error), admission, scope, send)
        elif method == "GET" and scope["path"] in STREAM_PATHS:
            await stream.serve(self.hub, self._access, self._reply, admission, scope, receive, send)
        else:
            await self._falcon(scope, receive, adding(send, admission, keys=self._access.keys is not None))

    def wire_answer(self, target: bytes, headers: Headers, *, head: bool, more: Headers, scope: Scope) -> list[bytes] | None:
        """The whole response to GET or HEAD `target` in bytes, if it needs no building; None: make it a request.

        For our own protocol (`api.protocol`), which then needs neither a task nor a scope. `headers`: of the request, names in
        lower case; `more`: headers of the connection; `scope`: of ASGI, as far as the connection knows it. It is told of the
        admission, so that none is paid twice.
        """
        # PERF: this is the path of nearly every request of a busy worker: one lookup, a few words of shared memory, the filling
        # of the holes. Measured by bench/api.py.
        began_ns = self.meter.now_ns() if next(self.meter.timed) else None
        admission = self._access.admit(target, headers, peer_of(scope))
        if admission.error is not None:
            made = self._refused(target, admission.error)
            return wire(made, [*more, NOSNIFF, (REQUEST_ID, next(self._ids))], body=not head, raw=admission.raw)
        hit = self._hit(target, headers)
        if hit is None:
            scope[ADMISSION] = admission
            return None
        segments = wire(hit, [*more, NOSNIFF, (REQUEST_ID, next(self._ids))], body=not head, raw=admission.raw)
        self.meter.hit(target, hit.status, began_ns)
        return segments

    def _refused(self, target: bytes, error: ApiError) -> Response:
        """The answer to a request that gets no further, counted. Not timed: a flood of these must not make answers look fast."""
        self.meter.answered(target.partition(b"?")[0].decode("latin-1"), error.status)
        access.info("(refused) %s %s", error.status, error.code)
        return refusal(error)

    def _overload(self, target: bytes) -> ApiError | None:
        """503 for what would have to be built while memory is short; probes go on."""
        return overloaded() if self.context.lifetime.short_of_memory and self._access.rule(target).cost else None

    async def _preflight(self, asked: Admission, scope: Scope, send: Send) -> None:
        if asked.error is not None:
            made = self._refused(target_of(scope), asked.error)
        else:
            made = Response(204, [(b"allow", ALLOWED_METHODS.encode("ascii")), (b"cache-control", NO_STORE.encode("ascii"))], [])
            self.meter.answered(None, made.status, scope[BEGAN_NS])
        await self._send(made, asked, scope, send)

    async def _send(self, made: Response, admission: Admission, scope: Scope, send: Send) -> None:
        """A whole response as ASGI messages."""
        headers = merged([*made.headers, NOSNIFF, (REQUEST_ID, next(self._ids))], admission.headers)
        await send({"type": "http.response.start", "status": made.status, "headers": headers})
        for chunk in () if scope["method"] == "HEAD" else made.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    def _hit(self, target: bytes, headers: Headers) -> Response | None:
        answer = self._cache.hit(target)
        if answer is None:
            return None
        now_ms = self._clock.wall_ns() // 1_000_000
        tag = coding = None
        for name, value in headers:
            if name == b"if-none-match":
                tag = value
            elif name == b"accept-encoding":
                coding = self._accepted.best(value)
        if coding is not None and coding not in answer.forms and not self.context.lifetime.short_of_memory:
            return None  # made on the long way, once
        made = answer.respond(now_ms, now_ms, tag, coding)
        if self._access.keys is not None:
            make_private(made.headers)  # a list of this response alone
        return made

    async def _known(self, target: bytes, admission: Admission, scope: Scope, send: Send) -> bool:
        """The same under any other ASGI server: answer from the cache if it has exactly this request."""
        made = self._hit(target, scope["headers"])
        if made is None:
            return False
        self.meter.hit(target, made.status, scope[BEGAN_NS])
        await self._send(made, admission, scope, send)
        return True

    # --- life of the worker -------------------------------------------------------------------------------------------

    def refused(self, status: int, headers: Headers) -> Headers:
        """The connection has answered by itself: too large, too many. What CORS adds, by the headers that it has read."""
        self.meter.answered(None, status)
        access.info("(refused by the connection) %s", status)
        return self._access.cors_headers(headers)

    def drain(self) -> None:
        """The worker has been asked to stop."""
        self.context.lifetime.stopping = True
        self.hub.say_bye()

    def turn(self) -> None:
        """Once a second: look for replaced files, tell the board."""
        self.context.sources.check()
        self._access.turn()
        if self._memory.turn(self._clock.monotonic_ns()):
            self.on_swollen()
        self._health.look()
        self.tell()

    def tell(self) -> None:
        """Publish what this worker has counted: to its counter file and its board row."""
        cache, sources = self._cache, self.context.sources
        retries, laps = sources.retries(), sources.lapped()
        self._lane.publish((cache.hits, cache.misses, retries, laps), (len(cache), cache.size))
        requests, client_errors, server_errors = self.meter.statuses()
        totals = {
            Word.HTTP_REQUESTS: requests,
            Word.HTTP_4XX: client_errors,
            Word.HTTP_5XX: server_errors,
            Word.CACHE_HITS: cache.hits,
            Word.CACHE_MISSES: cache.misses,
            Word.DIGEST_RETRIES: retries,
            Word.LAPPED_READS: laps,
            Word.SENDS_CONFLATED: self.meter.push.conflated,
        }
        self.on_turn(totals, {Word.CACHE_ENTRIES: len(cache), Word.CACHE_BYTES: cache.size})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        # A turn that fails must not end a start: a failing lifespan stops the whole pool.
        self._safely(self.turn)
        turns = asyncio.create_task(self._turns())
        self.hub.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        turns.cancel()
        self._safely(self._admin.close)
        self.hub.stop()
        self._safely(self.tell)  # what was counted since the last turn, the answers of the drain among it
        self.context.builder.close()
        self.context.sources.close()
        self._lane.close()
        self._access.close()
        self.on_stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _turns(self) -> None:
        while True:
            await self._admin.turn()
            await asyncio.sleep(TURN_S)
            self._safely(self.turn)

    def _safely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # the next turn may go well; the log tells each kind once per 10 s
            log.exception("a turn failed")


def create_app(settings: Settings, sources: Sources | None = None, clock: Clock | None = None) -> Service:
    """The application over the files of `settings`. Opens nothing before its start-up or its first request."""
    clock = clock or Clock()
    sources = sources or Sources(settings, clock)
    api = settings.api
    frames = {name: DepthFrames(files) for name, files in sources.symbols.items()}
    mix = Mix(settings.engine.tape_weight, settings.engine.projection_weight)
    cache = Cache(entries=api.cache_entries, size=api.cache_bytes, body=api.cache_body_bytes)
    builder = Builder(sources.borrowed)
    version = metadata.version("mpengine")
    interest = {name: OpenInterest(files) for name, files in sources.symbols.items()}
    return Service(
        Context(
            settings=settings,
            sources=sources,
            depth=frames,
            candles={name: CandleBars(files.candles) for name, files in sources.symbols.items()},
            oi=interest,
            liquidations={name: LiquidationRows(files.liquidations) for name, files in sources.symbols.items()},
            maps={name: MapFrames(files, mix) for name, files in sources.symbols.items()},
            mix=mix,
            coverage={name: SymbolCoverage(settings, name, frames[name], interest[name]) for name in sources.symbols},
            feeds=Feeds(settings, sources.feeds),
            cache=cache,
            builder=builder,
            encoder=Encoder(cache, builder),
            clock=clock,
            lifetime=Lifetime(clock.wall_ns()),
            build=version,
            access=Access(settings, rules_of(ENDPOINTS), clock.wall_ms, clock.monotonic_ns),
            meter=Meter(((one.paths, one.cost.name.lower()) for one in ENDPOINTS), clock.monotonic_ns),
            web=WebFiles({"symbols": [*settings.symbols], "version": version, "keys": settings.api.keys}),
        )
    )


def get_app() -> Service:
    """The application of the settings file named by MPENGINE_SETTINGS. Raises ConfigError."""
    return create_app(read_settings(settings_path()))
