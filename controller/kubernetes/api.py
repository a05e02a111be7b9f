"""Requests to the API server: kubernetes_asyncio's connection and credentials, raw JSON in and out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from kubernetes_asyncio import client, config
from kubernetes_asyncio.config.config_exception import ConfigException

from controller.objects.base import Ref
from controller.objects.kinds import Kind

FIELD_MANAGER = "fsm-gateway"


class ApiError(Exception):
    """The API server said no, or could not be asked (status 0)."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.status else self.message


def path(api_version: str, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """/apis/group/version/namespaces/…"""
    base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    parts = [base, *(["namespaces", namespace] if namespace else []), plural, name, subresource]
    return "/".join(part for part in parts if part)


def path_of(kind: Kind, ref: Ref, subresource: str = "") -> str:
    """The path of an object in its kind's preferred version."""
    return path(kind.api_versions[0], kind.plural, ref.namespace, ref.name, subresource)


class Api:
    """A connection to one API server."""

    def __init__(self, api_client: Any) -> None:
        self.client = api_client  # kubernetes_asyncio's own, for its parts that want it
        self._rest = api_client.rest_client
        self._host = api_client.configuration.host

    @property
    def host(self) -> str:
        """The API server's address."""
        return str(self._host)

    async def get(self, resource_path: str, **query: str) -> Any:
        """The decoded object or list at a path."""
        return msgspec.json.decode(await self.raw("GET", resource_path, query=query))

    async def find(self, resource_path: str) -> Any:
        """The object at a path, or None."""
        try:
            return await self.get(resource_path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, resource_path: str, body: Any) -> Any:
        """A new object in a collection."""
        return msgspec.json.decode(await self.raw("POST", resource_path, body=body))

    async def replace(self, resource_path: str, body: Any) -> Any:
        """A whole object in place of another."""
        return msgspec.json.decode(await self.raw("PUT", resource_path, body=body))

    async def apply(self, resource_path: str, body: Any) -> Any:
        """Server-side apply."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return msgspec.json.decode(
            await self.raw("PATCH", resource_path, body=body, query=query, kind="application/apply-patch+yaml")
        )

    async def merge(self, resource_path: str, body: Any) -> Any:
        """A JSON merge patch."""
        return msgspec.json.decode(await self.raw("PATCH", resource_path, body=body, kind="application/merge-patch+json"))

    async def delete(self, resource_path: str, **query: str) -> None:
        """Remove an object; that it is gone already is fine."""
        try:
            await self.raw("DELETE", resource_path, query=query)
        except ApiError as error:
            if error.status != 404:
                raise

    async def raw(
        self,
        method: str,
        resource_path: str,
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        """The bytes that a request is answered with; ApiError for anything but 2xx."""
        timeout = aiohttp.ClientTimeout(total=60)
        response = await self._request(method, resource_path, body, query, kind, accept, timeout)
        async with response:
            try:
                data: bytes = await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:  # it went away in the middle of its answer
                raise self._silent(error) from None
            if not 200 <= response.status < 300:
                raise _error(response, data)
            return data

    @asynccontextmanager
    async def watch(self, resource_path: str, query: dict[str, str], *, silence: float) -> AsyncIterator[aiohttp.StreamReader]:
        """The stream of a watch; TimeoutError after `silence` seconds without a byte."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        response = await self._request(
            "GET", resource_path, None, {**query, "watch": "1"}, "application/json", "application/json", timeout
        )
        async with response:
            if response.status != 200:
                raise _error(response, await response.read())
            yield response.content

    async def _request(
        self,
        method: str,
        resource_path: str,
        body: Any,
        query: dict[str, str] | None,
        kind: str,
        accept: str,
        timeout: aiohttp.ClientTimeout,
    ) -> Any:
        headers = {"Accept": accept, "Content-Type": kind, "User-Agent": "fsm-gateway"}
        # Looks at the token's file again when it is old; an expired token is replaced before it is refused.
        await self.client.update_params_for_auth(headers, [], ["BearerToken"])
        pairs = list((query or {}).items())
        try:
            return await self._rest.request(
                method, self._host + resource_path, query_params=pairs, headers=headers, body=body,
                _preload_content=False, _request_timeout=timeout,
            )  # fmt: skip
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._silent(error) from None

    def _silent(self, error: BaseException) -> ApiError:
        return ApiError(0, f"the API server {self._host} does not answer: {str(error) or type(error).__name__}")


def _error(response: Any, data: bytes) -> ApiError:
    try:
        message = str(msgspec.json.decode(data)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        message = data[:300].decode(errors="replace") or str(response.reason)
    try:
        after = float(response.headers.get("Retry-After", 0))
    except ValueError:
        after = 0.0
    return ApiError(response.status, message, after)


@asynccontextmanager
async def connect(kubeconfig: str = "") -> AsyncIterator[Api]:
    """By the pod's ServiceAccount where there is one, else by a kubeconfig. SystemExit says what is missing."""
    configuration = client.Configuration()
    try:
        if not kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("KUBECONFIG"):
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            file = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
            await config.load_kube_config(config_file=file, client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise SystemExit(f"no cluster to talk to: {error}\nSet KUBECONFIG or give --kubeconfig.") from None
    api_client = client.ApiClient(configuration=configuration)
    try:
        yield Api(api_client)
    finally:
        await api_client.close()
