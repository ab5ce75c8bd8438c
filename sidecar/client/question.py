"""What `guarded` was asked to guard, and the arguments that a decorated action's own call gives it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.client.wire import About
from sidecar.errors import UsageError

Resource = tuple[str, str]
Arguments = Mapping[str, Any] | bytes
"""By name; or a JSON object in UTF-8, which is sent as it is, for whoever hands the very same bytes on."""


@dataclass(frozen=True, slots=True)
class Question:
    """An action on a resource. ``resource`` and ``arguments`` may be functions of the decorated action's arguments."""

    action: str
    resource: Resource | Callable[..., Resource]
    arguments: Arguments | Callable[..., Arguments] | None
    about: About

    def plain(self) -> tuple[Resource, Arguments]:
        """Resource and arguments as a context manager uses them: there is no call to take them from."""
        if callable(self.resource) or callable(self.arguments):
            raise UsageError(f"guarded {self.action}: in a `with`, resource and arguments are values, not functions")
        return self.resource, {} if self.arguments is None else self.arguments

    def of_call(
        self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Resource, Arguments]:
        """Resource and arguments for one call of the decorated action. TypeError when the call does not fit it."""
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        resource = self.resource(*args, **kwargs) if callable(self.resource) else self.resource
        if callable(self.arguments):
            return resource, self.arguments(*args, **kwargs)
        return resource, _named(bound) if self.arguments is None else self.arguments

    def check_decorates(self, action: Callable[..., Any], *, asynchronous: bool) -> inspect.Signature:
        """The action's signature. UsageError for what this form cannot guard.

        Calling a coroutine function or a generator runs nothing yet, so a guard that does not await it would report an
        action that never ran. One idempotency key for all calls would make them one. What `functools.partial` gives by
        position has no name by which a policy could see it.
        """
        called = _called(action)
        if "idempotency_key" in self.about:
            raise UsageError(
                f"guarded {self.action}: one idempotency_key cannot serve every call of a decorated action"
            )
        if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (action, called)):
            raise UsageError(f"guarded {self.action}: a generator cannot be decorated; guard its use with `with`")
        if not asynchronous and any(map(inspect.iscoroutinefunction, (action, called))):
            raise UsageError(f"guarded {self.action}: a coroutine function is guarded by AsyncGuard")
        if self.arguments is None and isinstance(action, functools.partial) and action.args:
            raise UsageError(
                f"guarded {self.action}: no policy would see what functools.partial gives by position; give it by "
                "name, or say the arguments"
            )
        return inspect.signature(action)


def _called(action: Callable[..., Any]) -> Callable[..., Any]:
    """What runs when it is called: within `functools.partial`, and of an object its `__call__`."""
    while isinstance(action, functools.partial):
        action = action.func
    return action if inspect.isroutine(action) or inspect.isclass(action) else type(action).__call__


def _named(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments by name, without the object a method is called on."""
    names = list(bound.arguments)
    skip = {"self", "cls"}.intersection(names[:1])
    return {name: value for name, value in bound.arguments.items() if name not in skip}
