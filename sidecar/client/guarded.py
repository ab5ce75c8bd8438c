"""What `guarded` returns, for both guards: a context manager to enter once, and a decorator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from sidecar.client.outcome import Permit
from sidecar.client.question import Arguments, Question, Resource
from sidecar.client.wire import encode_object
from sidecar.errors import RequestError, UsageError

P = ParamSpec("P")
R = TypeVar("R")

_UNAWAITED: Final = "returned an awaitable, which nobody awaits here"


class Permits(Protocol):
    """A guard for threads."""

    def permitted(
        self, resource: Resource, arguments: Arguments, asked: Question
    ) -> AbstractContextManager[Permit]: ...


class AsyncPermits(Protocol):
    """A guard for asyncio."""

    def permitted(
        self, resource: Resource, arguments: Arguments, asked: Question
    ) -> AbstractAsyncContextManager[Permit]: ...


class Guarded:
    """What `Guard.guarded` returns: enter it once, or decorate with it."""

    def __init__(self, guard: Permits, asked: Question) -> None:
        self._guard = guard
        self._asked = asked
        self._run: AbstractContextManager[Permit] | None = None

    def __enter__(self) -> Permit:
        if self._run is not None:
            raise UsageError(f"guarded {self._asked.action}: a permit is for one run; call guarded() for each `with`")
        self._run = self._guard.permitted(*self._asked.plain(), self._asked)
        return self._run.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._run is not None
        return self._run.__exit__(kind, error, trace)

    def __call__(self, action: Callable[P, R]) -> Callable[P, R]:
        signature = self._asked.check_decorates(action, asynchronous=False)

        @functools.wraps(action)
        def guarded_action(*args: P.args, **kwargs: P.kwargs) -> R:
            resource, arguments = self._asked.of_call(signature, args, kwargs)
            judged = encode_object("arguments", arguments)
            with self._guard.permitted(resource, judged, self._asked) as permit:
                with permit.not_begun():
                    _check_unchanged(arguments, judged)
                result = action(*args, **kwargs)
                if inspect.isawaitable(result):  # a coroutine function in disguise
                    permit.respond({"error": _UNAWAITED})
                    _leave(result)
                    raise UsageError(f"guarded {self._asked.action}: it {_UNAWAITED}; it is guarded by AsyncGuard")
                return result

        return _sealed(guarded_action, signature)


class AsyncGuarded:
    """What `AsyncGuard.guarded` returns: enter it once, or decorate with it."""

    def __init__(self, guard: AsyncPermits, asked: Question) -> None:
        self._guard = guard
        self._asked = asked
        self._run: AbstractAsyncContextManager[Permit] | None = None

    async def __aenter__(self) -> Permit:
        if self._run is not None:
            raise UsageError(
                f"guarded {self._asked.action}: a permit is for one run; call guarded() for each `async with`"
            )
        self._run = self._guard.permitted(*self._asked.plain(), self._asked)
        return await self._run.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._run is not None
        return await self._run.__aexit__(kind, error, trace)

    def __call__(self, action: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        signature = self._asked.check_decorates(action, asynchronous=True)

        @functools.wraps(action)
        async def guarded_action(*args: P.args, **kwargs: P.kwargs) -> R:
            resource, arguments = self._asked.of_call(signature, args, kwargs)
            judged = encode_object("arguments", arguments)
            async with self._guard.permitted(resource, judged, self._asked) as permit:
                with permit.not_begun():
                    _check_unchanged(arguments, judged)
                result = action(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result  # a plain function's: it has run

        return _sealed(guarded_action, signature)


def _leave(result: Awaitable[object]) -> None:
    """Nobody will await it. A coroutine has not begun; a task may have."""
    end = getattr(result, "close", None) or getattr(result, "cancel", None)
    if end is not None:
        end()


def _check_unchanged(arguments: Arguments, judged: bytes) -> None:
    """RequestError where the very objects that the action is called with are no longer what was decided on."""
    if encode_object("arguments", arguments) != judged:
        raise RequestError("arguments", "were changed while they were decided on; the action has not run")


def _sealed(wrapper: Callable[P, R], signature: inspect.Signature) -> Callable[P, R]:
    """No way from the wrapper to the bare action: a framework that unwraps functions must not run it unguarded."""
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    return wrapper
