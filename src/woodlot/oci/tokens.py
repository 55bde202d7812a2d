"""Authorization for one repository: Basic, or a token from the server that the registry names.

Source: distribution, "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

import httpx

from woodlot.errors import AuthError, IntegrityError, RegistryError
from woodlot.oci.auth import Challenge, Credentials, find_credentials, parse_challenges
from woodlot.oci.jsonvalue import parse_object
from woodlot.oci.reference import Reference
from woodlot.oci.responses import (
    TransientError,
    error_text,
    printable,
    read_bounded,
    retry_after_s,
    same_origin,
)
from woodlot.oci.transport import Retry, failure, is_loopback

MAX_TOKEN_BYTES = 1 << 20
TOKEN_TIMEOUT_S = 60.0
_MAX_REDIRECTS = 3


class TokenSource:
    """Keeps the ``Authorization`` for one repository, and renews it when the registry refuses it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base: httpx.URL,
        reference: Reference,
        lookup: Callable[[str], Credentials | None] | None,
    ) -> None:
        self._client, self._base, self._reference = client, base, reference
        self._lookup = lookup or find_credentials
        self._credentials: Credentials | None = None
        self._looked_up = False
        self._lock = asyncio.Lock()
        self.authorization: str | None = None
        """The header's value for the registry itself, and for nobody else."""

    async def renew(self, challenges: Sequence[str], *, failed: str | None, what: str) -> None:
        """Answer the challenge of a 401 to a request that was sent with ``failed``.

        Raises:
            AuthError: The registry wants credentials that there are not, or that are wrong.
            RegistryError: Its challenge makes no sense, or its token server fails.
            TransientError: As before, but another attempt may help.
        """
        async with self._lock:
            # Of many requests refused at once, the first one gets the token for all.
            if self.authorization != failed:
                return
            if not self._looked_up:
                # A helper may take its time, or ask the user.
                self._credentials = await asyncio.to_thread(self._lookup, self._reference.registry)
                self._looked_up = True
            offered = {item.scheme: item for item in reversed(parse_challenges(challenges))}
            if "bearer" in offered:
                self.authorization = await self._token(offered["bearer"], what)
            elif "basic" not in offered:
                raise RegistryError(
                    f"{self._reference.registry} asks for an unknown kind of authentication",
                    details=printable("; ".join(challenges)) or "401 without WWW-Authenticate",
                )
            elif self._credentials is None or self._credentials.basic == failed:
                raise self.refused(what, None)
            else:
                self.authorization = self._credentials.basic

    def refused(self, what: str, details: str | None) -> AuthError:
        """The error for a registry that is not satisfied."""
        registry = self._reference.registry
        if self._credentials is None:
            return AuthError(
                f"{registry} wants credentials for {what}, or there is no such image",
                details=details,
                hint=f"check the name; for a private image set WOODLOT_REGISTRY_HOST={registry}, "
                f"WOODLOT_REGISTRY_USER and WOODLOT_REGISTRY_TOKEN, or run docker login {registry}",
            )
        return AuthError(
            f"{registry} does not accept the credentials from {self._credentials.source} for {what}",
            details=details,
            hint="check user and password, and that the account may read the image",
        )

    async def _token(self, challenge: Challenge, what: str) -> str:
        realm = self._realm(challenge)
        query = {
            "service": challenge.parameters.get("service", ""),
            # Of the registry's own words only the service is taken: the scope is what we need, no more.
            "scope": f"repository:{self._reference.repository}:pull",
        }
        if not query["service"]:
            del query["service"]
        host = realm.netloc.decode("ascii", "replace")
        try:
            async with asyncio.timeout(TOKEN_TIMEOUT_S):
                response = await self._ask(realm, query)
                try:
                    if response.status_code != 200:
                        raise await self._token_error(response, what)
                    data = await read_bounded(response, MAX_TOKEN_BYTES)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
            public, retry = failure(error, registry=host, url=realm, what=f"a token for {what}")
            raise public if retry is Retry.NEVER else TransientError(public) from error
        if data is None:
            raise RegistryError(f"the token from {host} is larger than {MAX_TOKEN_BYTES} bytes")
        try:
            document = parse_object(data, what=f"the token from {host}")
            token = document.text_or_none("token") or document.text("access_token")
        except IntegrityError as error:
            raise RegistryError(error.message) from error
        if not token.isascii() or not token.isprintable():
            raise RegistryError(f"the token from {host} cannot be sent in a header")
        return f"Bearer {token}"

    def _realm(self, challenge: Challenge) -> httpx.URL:
        registry = self._reference.registry
        text = challenge.parameters.get("realm", "")
        try:
            realm = self._base.join(text) if text else httpx.URL("")
        except httpx.InvalidURL:
            realm = httpx.URL("")
        if realm.scheme not in {"http", "https"} or not realm.host or realm.userinfo:
            raise RegistryError(
                f"{registry} names no valid token server", details=printable(text) or "no realm"
            )
        plain_is_fine = self._base.scheme == "http" and (
            realm.host == self._base.host or is_loopback(realm.host)
        )
        if realm.scheme == "http" and not plain_is_fine:
            raise RegistryError(
                f"{registry} names a token server that speaks plain HTTP",
                details=printable(str(realm)),
            )
        return realm

    async def _ask(self, realm: httpx.URL, query: dict[str, str]) -> httpx.Response:
        credentials = self._credentials
        if credentials is not None and credentials.identity_token:
            form = query | {
                "grant_type": "refresh_token",
                "client_id": "woodlot",
                "refresh_token": credentials.password,
            }
            # Not followed elsewhere: the form is the credential.
            return await self._client.send(
                self._client.build_request("POST", realm, data=form), stream=True
            )
        url = (
            realm.copy_merge_params(query)
            if realm.query
            else realm.copy_with(query=urlencode(query).encode())
        )
        for _ in range(_MAX_REDIRECTS + 1):
            headers: dict[str, str] = {}
            if credentials is not None and same_origin(url, realm):
                headers["Authorization"] = credentials.basic
            response = await self._client.send(
                self._client.build_request("GET", url, headers=headers), stream=True
            )
            if response.status_code not in {301, 302, 303, 307, 308}:
                return response
            await response.aclose()
            target = url.join(response.headers.get("Location", ""))
            if url.scheme == "https" and target.scheme != "https":
                raise RegistryError(f"{printable(url.host)} redirects a token to plain HTTP")
            url = target.copy_with(username=None, password=None) if target.userinfo else target
        raise RegistryError(
            f"{printable(realm.host)} redirects a token more than {_MAX_REDIRECTS} times"
        )

    async def _token_error(self, response: httpx.Response, what: str) -> Exception:
        status, host = response.status_code, printable(response.url.host)
        said = ""
        with contextlib.suppress(httpx.HTTPError):
            said = await error_text(response)
        details = f"HTTP {status} from {host}" + (f": {said}" if said else "")
        if status in {400, 401, 403, 404}:
            return self.refused(what, details)
        error = RegistryError(f"{host} failed to give a token for {what}", details=details)
        if status == 429 or status >= 500:
            return TransientError(error, wait_s=retry_after_s(response.headers))
        return error
