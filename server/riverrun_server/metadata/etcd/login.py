"""A token for a user's password, fetched when it is needed and after etcd has forgotten it."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
import grpc.aio

from riverrun_server.metadata.etcd.failures import Kind, being_cancelled, failure_of
from riverrun_server.metadata.etcd.options import User
from riverrun_server.metadata.etcd.v3 import rpc_pb2 as pb
from riverrun_server.metadata.etcd.v3 import rpc_pb2_grpc as stubs
from riverrun_server.ports.metadata import AccessDenied, MetadataUnavailable, StoreEnded

# etcd hashes passwords slowly on purpose.
_LOGIN_S: Final = 5.0


class Login:
    """Keeps one token; etcd accepts it at every member.

    Transitions: out -> in (`token`) -> out (`forget`).
    """

    def __init__(self, user: User | None) -> None:
        self._user = user
        self._token: str | None = None
        self._busy = asyncio.Lock()

    @property
    def needed(self) -> bool:
        """Whether there is a user to log in."""
        return self._user is not None

    async def token(self, auth: stubs.AuthAsyncStub, address: str) -> str:
        """Return the token, from `auth` where there is none yet.

        Raises:
            AccessDenied: the user or the password is wrong, or its file cannot be read.
            MetadataUnavailable: etcd did not answer.
            StoreEnded: it was closed meanwhile.
        """
        assert self._user is not None, "nobody to log in"
        async with self._busy:  # one log-in serves all who wait
            if self._token is None:
                self._token = await self._fetch(self._user, auth, address)
            return self._token

    def forget(self, along: grpc.aio.Metadata) -> None:
        """Drop the token that a refused call was sent with, unless it was renewed meanwhile."""
        if along.get("token") == self._token:
            self._token = None

    async def _fetch(self, user: User, auth: stubs.AuthAsyncStub, address: str) -> str:
        try:
            request = pb.AuthenticateRequest(name=user.name, password=user.password())
            reply = await auth.Authenticate(request, timeout=_LOGIN_S)
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            raise StoreEnded("the metadata store was closed") from error
        except OSError as error:
            raise AccessDenied(
                f"etcd.password_file {user.password_file}: {error.strerror}"
            ) from error
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            text = f"user {user.name!r} cannot log in to etcd at {address}: {failure.text}"
            if failure.kind is Kind.DENIED:
                raise AccessDenied(f"{text}; see etcd.user and etcd.password_file") from error
            raise MetadataUnavailable(text) from error
        return reply.token
