"""Reading settings: file < environment < flag, for any dataclass whose fields have defaults; each value's origin."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from sidecar import __version__
from sidecar.errors import UsageError

Settings = TypeVar("Settings")

_FLAGS = {"policy_source_path": "--policy"}
_SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from: ``default``, the file's path, the variable's name, or the flag."""

    value: Any
    origin: str


def load_settings(
    kind: type[Settings], prefix: str, file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Settings, dict[str, Source]]:
    """As `config.load`, of any dataclass whose fields have defaults; ``prefix``: of its variables."""
    defaults = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    sources = {name: Source(default, "default") for name, default in defaults.items()}
    for name, value in (_read(file, defaults.keys()) if file else {}).items():
        sources[name] = Source(_typed(name, value, f"{file}", type(defaults[name])), str(file))
    for variable, text in environment.items():
        name = variable.removeprefix(prefix).lower()
        if variable.startswith(prefix) and name in sources:
            sources[name] = Source(_from_text(text, variable, type(defaults[name])), variable)
    for name, value in flags.items():
        sources[name] = Source(value, _FLAGS.get(name, "--" + name.replace("_", "-")))
    return kind(**{name: source.value for name, source in sources.items()}), sources


def refuse_unknown(kind: type[Settings], prefix: str, environment: Mapping[str, str]) -> None:
    """Refuse a variable that would be passed over: misspelt, or a setting of another version of this program.

    Those that Kubernetes sets for each Service of the namespace ("service links": of a Service `sidecar`, say) are
    nobody's settings, and let be; they come together, so that one alone is taken for what it is not.

    Raises:
        UsageError: as said.
    """
    known = {prefix + f.name.upper() for f in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    services = [each.removesuffix("SERVICE_HOST") for each in environment if _is_service(each, environment)]
    for variable in sorted(environment):
        if variable.startswith(prefix) and variable not in known and not _is_link(variable, services):
            raise UsageError(
                f"{variable} in the environment is no setting of this version ({__version__}): unset it, or correct "
                "it; known names are shown by --print-config"
            )


def _is_service(variable: str, environment: Mapping[str, str]) -> bool:
    """Whether it says where a Service is, beside others that say the same (Kubernetes, "Accessing the Service")."""
    if not variable.endswith("_SERVICE_HOST"):
        return False
    service = variable.removesuffix("SERVICE_HOST")
    port, url = environment.get(f"{service}SERVICE_PORT", ""), environment.get(f"{service}PORT", "")
    return port.isdecimal() and re.fullmatch(rf"(tcp|udp|sctp)://.+:{port}", url) is not None


def _is_link(variable: str, services: Collection[str]) -> bool:
    return any(
        variable.startswith(service) and _SERVICE_LINK.fullmatch(variable.removeprefix(service)) for service in services
    )


def _read(file: Path, known: Collection[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration {file} is not TOML: {error}") from None
    values = _flat(values)
    for name in values:
        if name not in known:
            near = " or ".join(difflib.get_close_matches(name, known))
            mend = f"perhaps it is {near}" if near else "known names are shown by --print-config"
            raise UsageError(f"the configuration {file} has an unknown name {name!r}; {mend}")
    return values


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The settings of a file, a table's name before the names in it."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{before}{name}_") if isinstance(value, dict) else {before + name: value})
    return flat


def _typed(name: str, value: Any, origin: str, wanted: type) -> Any:
    if wanted is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise UsageError(f"{origin}: {name} must be {_described(wanted)}")
    return value


def _from_text(text: str, origin: str, wanted: type) -> Any:
    if wanted is tuple:
        return tuple(part for part in text.split(",") if part)
    if wanted is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"{origin}: must be true or false")
        return text.lower() in ("true", "1")
    try:
        return wanted(text)
    except ValueError:
        raise UsageError(f"{origin}: must be {_described(wanted)}") from None


def _described(kind: type) -> str:
    return {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}.get(
        kind, "a list of strings"
    )
