"""The environment of a program that serves: every variable with its prefix is a setting, or it does not start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from sidecar import __version__
from sidecar.errors import UsageError

_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT(_[0-9]+_[A-Z]+(_(PROTO|PORT|ADDR))?)?$")


def refuse_unknown(kind: type[Any], prefix: str, environment: Mapping[str, str]) -> None:
    """Refuse a variable that would be passed over: misspelt, or a setting of another version of this program.

    Those that Kubernetes sets for a Service of that name ("service links") are nobody's settings, and let be.

    Raises:
        UsageError: as said.
    """
    known = {prefix + f.name.upper() for f in fields(kind)}
    for variable in sorted(environment):
        if variable.startswith(prefix) and variable not in known and not _SERVICE_LINK.search(variable):
            raise UsageError(
                f"{variable} in the environment is no setting of this version ({__version__}): unset it, or correct "
                "it; known names are shown by --print-config"
            )
