"""Kubernetes' schemas, strict, as the package kubernetes-validate brings them. Its own `validate` reads a version's
definitions, 1.8 MB, for each manifest; here they are read once."""

from __future__ import annotations

import functools
from typing import Any, Final

import jsonschema
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from referencing import Registry, Resource

VERSIONS: Final = ("1.35", "1.36", "1.37")


def validate(manifest: dict[str, Any], version: str) -> None:
    """Raises jsonschema.ValidationError where the version would not take it, FileNotFoundError for a kind that is not
    Kubernetes' own.
    """
    validator(version, manifest["apiVersion"], manifest["kind"]).validate(manifest)


@functools.cache
def validator(version: str, api: str, kind: str) -> jsonschema.Draft202012Validator:
    """For one kind in one version. ``api``: as `rbac.authorization.k8s.io/v1`, of which `rbac-v1` is the file's."""
    group, slash, name = api.rpartition("/")
    file = f"{kind.lower()}-{group.partition('.')[0]}{'-' * len(slash)}{name}.json"
    schema = schema_contents(f"{directory(version)}/{file}", version)
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ definitions(version))


@functools.cache
def definitions(version: str) -> Registry[Any]:
    return Resource.from_contents(schema_contents(f"{directory(version)}/_definitions.json", version)) @ Registry()


def directory(version: str) -> str:
    (found,) = {each for each in all_versions() if major_minor(each) == version}
    return f"kubernetes-json-schema/v{found}-local-strict"
