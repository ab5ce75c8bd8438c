"""Objects in a bucket of an S3 API, created with If-None-Match, kept by Object Lock in COMPLIANCE mode (extra ``s3``).

The bucket must have versioning and Object Lock: without them whoever may write could replace an object, and the log
would not notice before it is verified.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sidecar.collector.storage.port import checked
from sidecar.errors import StorageError

_THERE = {"PreconditionFailed", "412"}
_MISSING = {"NoSuchKey", "404"}
_AT_ONCE = {"ConditionalRequestConflict", "409"}  # two creations at the same moment: one of them is to ask again
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where: the bucket, its endpoint (None: AWS's own), region, a prefix within it, and credentials (None: those that
    the environment, files or the machine's role give)."""

    name: str
    endpoint: str | None = None
    region: str | None = None
    prefix: str = ""
    access_key: str | None = None
    secret_key: str | None = None


class S3Storage:
    """See `Storage` for what is promised.

    Raises:
        StorageError: the bucket cannot be reached, or has no Object Lock.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        with _mapped(f"bucket {bucket.name}"):
            self._client = boto3.client(
                "s3",
                endpoint_url=bucket.endpoint,
                region_name=bucket.region,
                aws_access_key_id=bucket.access_key,
                aws_secret_access_key=bucket.secret_key,
                config=Config(
                    s3={"addressing_style": "path" if bucket.endpoint else "auto"},
                    retries={"mode": "standard", "max_attempts": _ATTEMPTS},
                    connect_timeout=5,
                    read_timeout=30,
                ),
            )
        self._check_lock()

    def _check_lock(self) -> None:
        name = self._bucket.name
        try:
            with _mapped(f"bucket {name}"):
                found = self._client.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]
        except StorageError as error:
            raise StorageError(f"{error}; the bucket must exist and be made with Object Lock") from None
        if found.get("ObjectLockEnabled") != "Enabled":
            raise StorageError(f"bucket {name} has no Object Lock: make one that has, it cannot be added in all stores")

    def create(self, name: str, data: bytes, *, keep_until: int | None = None) -> bool:
        lock: dict[str, Any] = {}
        if keep_until is not None:
            until = datetime.fromtimestamp(keep_until, UTC)
            lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        for _ in range(_ATTEMPTS):
            try:
                with _mapped(name):
                    self._client.put_object(
                        Bucket=self._bucket.name, Key=self._key(name), Body=data, IfNoneMatch="*", **lock
                    )
            except _Refused as refused:
                if refused.code in _THERE:
                    return False
                if refused.code not in _AT_ONCE:
                    raise
            else:
                return True
        raise StorageError(f"cannot store {name}: the store goes on saying that somebody else does")

    def read(self, name: str, limit: int) -> bytes | None:
        try:
            with _mapped(name):
                body = self._client.get_object(Bucket=self._bucket.name, Key=self._key(name))["Body"]
                with contextlib.closing(body):
                    data = body.read(limit + 1)
        except _Refused as refused:
            if refused.code in _MISSING:
                return None
            raise
        if len(data) > limit:
            raise StorageError(f"{name} is longer than {limit} bytes")
        return data

    def remove(self, name: str) -> None:
        bucket, key = self._bucket.name, self._key(name)
        with _mapped(name):
            pages = self._client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
            found: list[Any] = []
            for page in pages:
                found += [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            for version in found:  # a removal without its version would only hide the object
                if version["Key"] == key:
                    self._client.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])

    def names(self, prefix: str) -> Iterator[str]:
        with _mapped(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket.name, Prefix=self._bucket.prefix + prefix):
                for each in page.get("Contents", ()):
                    yield each["Key"].removeprefix(self._bucket.prefix)

    def _key(self, name: str) -> str:
        return self._bucket.prefix + checked(name)


class _Refused(StorageError):
    """The store answered with an error; ``code`` is its word for it."""

    def __init__(self, name: str, code: str) -> None:
        super().__init__(f"cannot store or read {name}: the store says {code}")
        self.code = code


@contextlib.contextmanager
def _mapped(name: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _Refused(name, str(error.response.get("Error", {}).get("Code", "nothing"))) from None
    except (BotoCoreError, OSError) as error:
        # Its text may name the endpoint, never a key.
        raise StorageError(f"cannot store or read {name}: {type(error).__name__}") from None
