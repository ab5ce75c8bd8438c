"""A policy compiled to Wasm by `opa build -t wasm`, run under limits of time and memory: in this process, or beside it.

Nothing of where policies come from, and nothing of what their results mean. Each file is part of the room's public
list; none is loaded before it is asked for, since the process beside the sidecar (`process`) is to stay small.
"""

__all__ = [
    "beside",
    "frames",
    "gofmt",
    "guest",
    "host_builtins",
    "instance",
    "machine_code",
    "process",
    "rego_value",
    "ticker",
]
