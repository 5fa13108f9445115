"""The peer of `bench.api`: FastAPI under uvicorn (uvloop, httptools), returning a response that was encoded before.

`/orderbook_heatmap?size=<n>` answers n constant bytes. Runs where fastapi is installed, which mpengine does not depend on: in
this interpreter, or in the one that MPENGINE_PEER_PYTHON names::

    python bench/fastapi_peer.py PORT
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec


def interpreter() -> str | None:
    """The interpreter that can run the peer; None where none can."""
    named = os.environ.get("MPENGINE_PEER_PYTHON")
    if named is None:
        return sys.executable if find_spec("fastapi") is not None else None
    done = subprocess.run([named, "-c", "import fastapi, uvicorn, uvloop, httptools"], capture_output=True, timeout=60, check=False)
    return named if done.returncode == 0 else None


def main() -> None:
    """Serve until killed."""
    import uvicorn
    from fastapi import FastAPI, Response  # type: ignore[import-not-found]

    app = FastAPI()
    bodies: dict[int, bytes] = {}

    # Annotations here are objects and not text: FastAPI resolves text in the module's names, which do not have `Response`.
    def answer(size: int = 10_000, symbol: str = "BTC") -> object:  # noqa: ARG001
        return Response(bodies.setdefault(size, b"x" * size), media_type="application/json")

    async def answer_in_loop(size: int = 10_000, symbol: str = "BTC") -> object:
        return answer(size, symbol)

    app.get("/orderbook_heatmap", response_model=None)(answer_in_loop)
    port = int(sys.argv[1])
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", ws="none", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
