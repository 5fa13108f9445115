"""The peer of `bench.api`: FastAPI under uvicorn (uvloop, httptools), with the bodies of the files of a folder::

    /cached?name=<file>&symbol=BTC    one response object, made once and returned again and again
    /built?name=<file>&symbol=BTC     a dict of the file's JSON, made anew for each request and encoded by FastAPI
    /typed?name=<file>&symbol=BTC     the same from a function that is annotated to return one, which pydantic encodes at once

Runs where fastapi is installed, which mpengine does not depend on: in this interpreter, or in the one that MPENGINE_PEER_PYTHON
names::

    python bench/fastapi_peer.py PORT FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Make = Callable[[], Any]


def interpreter() -> str | None:
    """The interpreter that can run the peer; None where none can."""
    named = os.environ.get("MPENGINE_PEER_PYTHON")
    if named is None:
        wanted = ("fastapi", "uvicorn", "uvloop", "httptools")
        return sys.executable if all(find_spec(name) is not None for name in wanted) else None
    done = subprocess.run([named, "-c", "import fastapi, uvicorn, uvloop, httptools"], capture_output=True, timeout=60, check=False)
    return named if done.returncode == 0 else None


def version(python: str) -> str:
    """Of the FastAPI that `python` has."""
    command = [python, "-c", "import fastapi; print(fastapi.__version__)"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def maker(value: Any) -> Make:
    """Makes `value` anew at each call, as a service does that keeps its numbers in arrays: lists of numbers out of arrays, other
    lists and dicts item by item."""
    if isinstance(value, dict):
        items = [(key, maker(one)) for key, one in value.items()]
        return lambda: {key: make() for key, make in items}
    if isinstance(value, list):
        if value and all(type(one) is float for one in value):
            return array("d", value).tolist
        if value and all(type(one) is int for one in value):
            return array("q", value).tolist
        makers = [maker(one) for one in value]
        return lambda: [make() for make in makers]
    return lambda: value


def main() -> None:
    """Serve until killed."""
    import uvicorn
    from fastapi import FastAPI, Response  # type: ignore[import-not-found]

    app, folder = FastAPI(), Path(sys.argv[2])
    responses: dict[str, Any] = {}
    makers: dict[str, Make] = {}

    def made(name: str) -> Any:
        make = makers.get(name)
        if make is None:
            make = makers[name] = maker(json.loads((folder / name).read_bytes()))
        return make()

    # What is returned is annotated in one of them alone: FastAPI resolves the text in the module's names and acts on it.
    async def cached(name: str, symbol: str = "BTC"):  # type: ignore[no-untyped-def]  # noqa: ARG001
        found = responses.get(name)
        if found is None:
            found = responses[name] = Response((folder / name).read_bytes(), media_type="application/json")
        return found

    async def built(name: str, symbol: str = "BTC"):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return made(name)

    async def typed(name: str, symbol: str = "BTC") -> dict[str, Any]:  # noqa: ARG001
        return dict(made(name))

    for path, endpoint in (("/cached", cached), ("/built", built), ("/typed", typed)):
        app.get(path)(endpoint)
    port = int(sys.argv[1])
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", ws="none", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
