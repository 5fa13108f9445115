"""`/openapi.json`: OpenAPI 3.1 from the table of endpoints, the parameter tables and the Structs of the contract.

Nothing is described twice: what a parameter takes comes from the object that validates it, what a body holds from its Struct, what
an example shows from the golden bodies of the tests. Beside the standard: `x-clamped` (range into which a parameter is moved),
`x-cost` (tokens of a request), `x-refused` (parameters that give 400), `x-errors` (every error code), `x-push` (the push
protocol, for which OpenAPI has no words).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from typing import Any, Final

import msgspec

from api import params
from api.bodies import CONTRACT
from api.endpoint import BINARY, JSON, Endpoint
from api.heatmap_params import Listed, Refused, Words
from api.openapi_push import push_description
from api.openapi_texts import BINARY_FORMS, ERRORS, HEADERS, INFO, PARAMETERS, SECURITY
from api.push.stream import CHANNELS_PER_STREAM
from mpengine import contract
from mpengine.config import Settings
from mpengine.contract import push

Json = dict[str, Any]

REF: Final = "#/components/schemas/{name}"
WHOLE_RANGE: Final = 10**15 - 1  # an integer has at most 15 digits
EVERY_ANSWER: Final = ("Cache-Control", "X-Content-Type-Options", "X-Request-Id", "Access-Control-Allow-Origin", "Vary")
LIMITED: Final = ("RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
IDENTITY: Final = ("ETag", "X-Seq", "X-Epoch", "X-Age-Ms", "X-Stale")
BY_STATUS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",), 405: ("Allow",), 429: ("Retry-After",), 503: ("Retry-After",),
}  # fmt: skip
FROM_BELOW: Final = (413, 414, 431)


# parameters -------------------------------------------------------------------------------------------------------------


@singledispatch
def schema_of(parameter: object) -> Json:
    """JSON Schema of a parameter. Raises TypeError for a kind that nobody has described."""
    raise TypeError(f"{type(parameter).__name__} has no description")


@schema_of.register
def _(parameter: params.Symbol) -> Json:
    found: Json = {"type": "string", "enum": list(parameter.symbols)}
    return found | ({"default": params.DEFAULT_SYMBOL} if params.DEFAULT_SYMBOL in parameter.symbols else {})


@schema_of.register
def _(parameter: params.Integer) -> Json:
    found: Json = {"type": "integer", "format": "int64"}
    if parameter.clamp:
        found |= {"minimum": -WHOLE_RANGE, "maximum": WHOLE_RANGE, "x-clamped": [parameter.low, parameter.high]}
    else:
        found |= {"minimum": parameter.low, "maximum": parameter.high}
    return found if parameter.default is None else found | {"default": parameter.default}


@schema_of.register
def _(parameter: params.Number) -> Json:
    found: Json = {"type": "number", "minimum" if parameter.inclusive else "exclusiveMinimum": parameter.above}
    return found if parameter.high == float("inf") else found | {"maximum": parameter.high}


@schema_of.register
def _(parameter: params.Choice) -> Json:
    return {"type": "string", "enum": list(parameter.words), "default": parameter.default}


@schema_of.register
def _(parameter: params.OptionalChoice) -> Json:
    return {"type": "string", "enum": list(parameter.words)}


@schema_of.register
def _(parameter: Listed) -> Json:
    return {"type": "integer", "enum": [0, *parameter.values], "default": 0}


@schema_of.register
def _(parameter: Words) -> Json:
    words = {"type": "string", "enum": list(parameter.words)}
    return {"type": "array", "items": words, "minItems": 1, "default": list(parameter.default)}


@schema_of.register
def _(_parameter: params.Names) -> Json:
    name = {"type": "string", "pattern": r"^[a-z]+(\.[A-Z0-9]+)?$"}
    return {"type": "array", "items": name, "minItems": 1, "maxItems": CHANNELS_PER_STREAM}


@schema_of.register
def _(_parameter: params.Text) -> Json:
    return {"type": "string"}


def outside(parameter: params.Parameter) -> str:
    """What becomes of a value outside the range."""
    clamped = isinstance(parameter, params.Integer) and parameter.clamp
    return "clamped into its range, the effective value is in the answer" if clamped else "400"


class _Parameters:
    """`components.parameters`: one per distinct parameter, called by its name and, where that is taken, by its endpoint."""

    def __init__(self) -> None:
        self.objects: Json = {"If-None-Match": {
            "name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"},
            "description": "ETag of the answer that you have: 304 with all headers where it is still the newest.",
        }}  # fmt: skip
        self._keys: dict[params.Parameter, str] = {}

    def ref(self, parameter: params.Parameter, route: str) -> Json:
        key = self._keys.get(parameter)
        if key is None:
            key = parameter.name if parameter.name not in self.objects else f"{parameter.name}_{_word(route)}"
            self._keys[parameter] = key
            schema = schema_of(parameter)
            self.objects[key] = {
                "name": parameter.name, "in": "query", "required": isinstance(parameter, params.Names),
                "description": f"{PARAMETERS[parameter.name]} Outside its range: {outside(parameter)}.", "schema": schema,
            }  # fmt: skip
            if schema.get("type") == "array":  # a comma list
                self.objects[key] |= {"style": "form", "explode": False}
        return {"$ref": f"#/components/parameters/{key}"}


# answers ----------------------------------------------------------------------------------------------------------------


class _Responses:
    """`components.responses`: one per distinct set of error codes."""

    def __init__(self, examples: Json) -> None:
        self.objects: Json = {}
        self._examples = examples

    def error(self, status: int, codes: Sequence[str], also: type[msgspec.Struct] | None = None) -> Json:
        """Response of a status with these codes; `also`: or with a body of the endpoint."""
        headers = _headers((*EVERY_ANSWER, *BY_STATUS.get(status, ())))
        body: Json = {"allOf": [_ref(contract.Error)], "properties": {"error": {"enum": list(codes)}}}
        if also is not None:
            body = {"anyOf": [_ref(also), body]}
        content: Json = {JSON: {"schema": body, "examples": self._shown(codes)}}
        if status in FROM_BELOW:
            content["text/plain"] = {"schema": {"type": "string"}}
        found = {"description": ", ".join(codes), "headers": headers, "content": content}
        return found if also is not None else self.kept("-".join((str(status), *codes)), found)

    def kept(self, key: str, response: Json) -> Json:
        """Reference to a response that several operations share."""
        self.objects[key] = response
        return {"$ref": f"#/components/responses/{key}"}

    def _shown(self, codes: Sequence[str]) -> Json:
        return {code: {"value": self._examples[code]} for code in codes if code in self._examples}


def _headers(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _ref(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": REF.format(name=kind.__name__)}


def _word(path: str) -> str:
    return re.sub(r"\W+", "_", path.strip("/")) or "root"


def codes_of(endpoint: Endpoint) -> dict[int, tuple[str, ...]]:
    """Every error that a GET of the endpoint may give: status -> codes."""
    found: dict[int, tuple[str, ...]] = {}
    if endpoint.symbol or endpoint.parameters:
        found[400] = ("invalid_parameter", "repeated_parameter")
        if endpoint.symbol:
            found[400] = ("invalid_symbol", *found[400])
    if not endpoint.open:
        found |= {401: ("unauthorized",), 403: ("forbidden",)}
    found |= {413: ("payload_too_large",), 414: ("uri_too_long",)}
    if endpoint.cost:
        found[429] = ("rate_limited",)
    found |= {431: ("headers_too_large",), 500: ("internal",), 503: ("overloaded",)}
    for status, codes in endpoint.codes.items():
        found[status] = (*found.get(status, ()), *codes)
    return dict(sorted(found.items()))


class _Paths:
    """The operations of every path."""

    def __init__(self, symbols: tuple[str, ...], examples: Json) -> None:
        self.parameters = _Parameters()
        self.responses = _Responses(examples["errors"])
        self._symbol = params.Symbol(symbols)
        self._examples = examples["paths"]

    def item(self, endpoint: Endpoint, path: str) -> Json:
        """The path item of an endpoint or of one of its aliases."""
        found = [self.parameters.ref(row, endpoint.path) for row in endpoint.parameters if not isinstance(row, Refused)]
        refused = {row.name: row.reason for row in endpoint.parameters if isinstance(row, Refused)}
        if endpoint.symbol:
            found.insert(0, self.parameters.ref(self._symbol, endpoint.path))
        if endpoint.data:
            found.append({"$ref": "#/components/parameters/If-None-Match"})
        get = {
            "operationId": _word(path), "summary": endpoint.summary, "description": self._description(endpoint, path),
            "x-cost": int(endpoint.cost), "responses": self._answers(endpoint),
        }  # fmt: skip
        if path != endpoint.path:
            get["x-alias-of"] = endpoint.path
        if refused:
            get["x-refused"] = refused
        if endpoint.open:
            get["security"] = []
        head = {**get, "operationId": f"{_word(path)}_head", "summary": "The headers alone", "responses": self._heads(endpoint)}
        return {"parameters": found, "get": get, "head": head}

    def _description(self, endpoint: Endpoint, path: str) -> str:
        if path != endpoint.path:
            return f"Alias of {endpoint.path}: the same bytes."
        return inspect.getdoc(endpoint.body) or "" if endpoint.body is not None else endpoint.summary

    def _answers(self, endpoint: Endpoint) -> Json:
        ok = {"description": endpoint.summary, "headers": _headers(_names(endpoint)),
              "content": {media: self._media(endpoint, media, 200) for media in endpoint.media}}  # fmt: skip
        if endpoint.media:
            found = {"200": self.responses.kept(_word(endpoint.path), ok), **self._not_modified(endpoint)}
        else:
            found = {"101": {"description": "The connection is a WebSocket from here on"}}
        for status, codes in codes_of(endpoint).items():
            also = endpoint.body if status in endpoint.also else None
            answer = self.responses.error(status, codes, also)
            if also is not None:
                answer["content"][JSON]["examples"] |= self._shown(endpoint, status)
            found[str(status)] = answer
        return found

    def _heads(self, endpoint: Endpoint) -> Json:
        ok = {"description": endpoint.summary, "headers": _headers(_names(endpoint))}
        other = {"description": "The status and headers of the GET, without its body"}
        known = {"200": self.responses.kept(f"{_word(endpoint.path)}_head", ok)} if endpoint.media else {}
        return {**known, **self._not_modified(endpoint), "default": self.responses.kept("head", other)}

    def _not_modified(self, endpoint: Endpoint) -> Json:
        if not endpoint.data and "ETag" not in endpoint.headers:
            return {}
        same = {"description": "What you have is the newest", "headers": _headers(_names(endpoint))}
        return {"304": self.responses.kept(f"{_word(endpoint.path)}_304", same)}

    def _media(self, endpoint: Endpoint, media: str, status: int) -> Json:
        if media == BINARY:
            return {"x-layout": BINARY_FORMS[endpoint.path]}
        if media != JSON:
            return {}
        if endpoint.body is None:
            return {"schema": {"type": "object"}}
        return {"schema": _ref(endpoint.body), "examples": self._shown(endpoint, status)}

    def _shown(self, endpoint: Endpoint, status: int) -> Json:
        body = self._examples.get(endpoint.path, {}).get(str(status))
        if body is None:
            return {}
        return {"body": {"$ref": f"#/components/examples/{_word(endpoint.path)}_{status}"}}


def _names(endpoint: Endpoint) -> tuple[str, ...]:
    """Headers of a 200."""
    limited, identity = LIMITED if endpoint.cost else (), IDENTITY if endpoint.data else ()
    return (*EVERY_ANSWER, *limited, *identity, *endpoint.headers)


# the document -----------------------------------------------------------------------------------------------------------


def schemas(endpoints: Iterable[Endpoint]) -> Json:
    """`components.schemas`: every Struct that an answer or a push message has."""
    bodies = [endpoint.body for endpoint in endpoints if endpoint.body is not None]
    pushed = [*push.MESSAGES, *push.COMMANDS, *(kind for kinds in push.CHANNELS.values() for kind in kinds)]
    _, found = msgspec.json.schema_components([contract.Error, *bodies, *pushed], ref_template=REF)
    for kind, sets in contract.ONE_OF.items():
        if kind.__name__ in found:
            found[kind.__name__]["oneOf"] = [{"required": list(keys), "maxProperties": len(keys)} for keys in sets]
    return dict(sorted(found.items()))


def document(endpoints: Sequence[Endpoint], settings: Settings, examples: Json, build: str) -> Json:
    """The whole document. `examples`: of `api/web/examples.json`; `build`: version of the program."""
    paths = _Paths(tuple(settings.symbols), examples)
    items = {path: paths.item(endpoint, path) for endpoint in endpoints for path in endpoint.paths}
    secured: list[Json] = [{name: []} for name in SECURITY]
    shown = {f"{_word(path)}_{status}": {"value": body} for path, by_status in examples["paths"].items()
             for status, body in by_status.items()}  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {**INFO, "version": CONTRACT, "x-build": build},
        "servers": [{"url": "/"}],
        "security": secured if settings.api.keys else [{}, *secured],
        "paths": items,
        "components": {
            "schemas": schemas(endpoints),
            "parameters": paths.parameters.objects,
            "headers": HEADERS,
            "responses": paths.responses.objects,
            "examples": shown,
            "securitySchemes": SECURITY,
        },
        "x-errors": [{"status": status, "code": code, "when": ERRORS[code]}
                     for status, codes in contract.ERROR_CODES.items() for code in codes],
        "x-push": push_description(REF, settings.api),
    }  # fmt: skip
