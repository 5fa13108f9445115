"""What can go wrong between a client and a server.

ClientError
├── ApiError            the server answered with an error: status, code, detail, retry_after_s
├── Unreachable         no connection, a broken one, or no answer in time
├── ContractError       an answer or a message that is not what the contract says
├── Refused             channels of a subscription that the server does not give
└── SlowConsumer        updates came faster than they were taken
"""

from __future__ import annotations

from collections.abc import Mapping


class ClientError(Exception):
    """Root of everything that `mpengine.client` raises."""


class ApiError(ClientError):
    """An error answer. `code` and `detail` are the server's texts; `retry_after_s`: when it asked to be asked again, if it did."""

    def __init__(self, status: int, code: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, code, detail, retry_after_s)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        wait = "" if self.retry_after_s is None else f", retry after {self.retry_after_s:g} s"
        return f"{self.status} {self.code}: {self.detail}{wait}"


class Unreachable(ClientError):
    """No answer. `cause`: what the last try ended with."""

    def __init__(self, what: str, cause: BaseException) -> None:
        super().__init__(what, cause)
        self.what = what
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.what}: {type(self.cause).__name__}: {self.cause}"


class ContractError(ClientError):
    """Something came that the contract does not allow, or that is newer than this client."""


class Refused(ClientError):
    """`errors`: channel -> code. Nothing of the subscription is delivered."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(dict(errors))
        self.errors = dict(errors)

    def __str__(self) -> str:
        return "channels refused: " + ", ".join(f"{channel} ({code})" for channel, code in sorted(self.errors.items()))


class SlowConsumer(ClientError):
    """The queue of a stream stayed full. What is in it is delivered first; the positions of the stream are where to resume."""

    def __init__(self, queued: int, waited_s: float) -> None:
        super().__init__(queued, waited_s)
        self.queued = queued
        self.waited_s = waited_s

    def __str__(self) -> str:
        return f"{self.queued} updates were waiting and none was taken for {self.waited_s:g} s"
