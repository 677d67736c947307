"""Who may ask, and from where: tokens, host names, origins.

Tokens are random and long, so a plain SHA-256 of each is kept and not the token. A wrong one takes as long to refuse as
a right one to accept. Host names are checked because a web page can point a name of its own at 127.0.0.1 and then
read what answers there (DNS rebinding); origins, because a page anywhere can send a form to a server on loopback.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie

COOKIE = "xmodal_token"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_TOKEN = 16
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via", b"x-forwarded-host")


class RefusedError(Exception):
    """A request that is turned away.

    Attributes:
        status: Of the answer.
        kind: A word for the problem document and the metrics.
        detail: A sentence for the client.
        headers: Of the answer.
    """

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, dict(headers or {})


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: Of the token, or the address.
        admin: Whether they may change what is served.
    """

    name: str
    admin: bool


def parse_tokens(texts: Iterable[str]) -> dict[str, str]:
    """Tokens as settings have them, to hashes by name.

    Args:
        texts: Each ``TOKEN``, ``NAME:TOKEN``, or ``NAME:sha256:HEX`` with the SHA-256 of the token.

    Returns:
        The hash of each token by its name; one without a name is called ``token1``, ``token2`` ...

    Raises:
        ValueError: If a token is short, a name is odd, or one is there twice. The message never has the token.
    """
    hashes: dict[str, str] = {}
    for number, text in enumerate((text.strip() for text in texts), start=1):
        name, colon, rest = text.partition(":")
        if not colon:
            name, rest = f"token{number}", text
        if not _NAME.fullmatch(name):
            raise ValueError(f"token {number} has a name that is no plain word; write NAME:TOKEN, such as alice:…")
        hashed = _HASHED.fullmatch(rest)
        if hashed is None and (rest.startswith("sha256:") or len(rest) < SHORTEST_TOKEN):
            raise ValueError(
                f"token {name!r} needs at least {SHORTEST_TOKEN} characters, or sha256: and 64 hex digits; make one "
                "with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if name in hashes:
            raise ValueError(f"there are two tokens with the name {name!r}; every token needs a name of its own")
        hashes[name] = hashed[1] if hashed else hashlib.sha256(rest.encode()).hexdigest()
    return hashes


@dataclass(frozen=True)
class Access:
    """Who may ask, and from where.

    Attributes:
        tokens: SHA-256 of each token by its name (:func:`parse_tokens`); none: everyone may ask.
        admin_tokens: Tokens that may also change what is served. If there are neither these nor others, whoever asks
            from this machine itself, and not through a proxy, may.
        hosts: Names that the server answers to, without port; None: any.
        origins: Pages of which other origins may use the server (CORS), such as "https://music.example".
        open_paths: What needs no token: a path, or all below one that ends in a slash.
    """

    tokens: Mapping[str, str] = field(default_factory=dict)
    admin_tokens: Mapping[str, str] = field(default_factory=dict)
    hosts: Sequence[str] | None = None
    origins: Sequence[str] = ()
    open_paths: Sequence[str] = ("/", "/static/", "/health", "/ready", "/favicon.ico")

    def __post_init__(self) -> None:
        twice = self.tokens.keys() & self.admin_tokens.keys()
        if twice:
            raise ValueError(f"the name {min(twice)!r} is used for a token and an admin token; use two names")
        for origin in self.origins:
            if not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"an origin is a scheme and a host, such as https://music.example, got {origin!r}")

    @classmethod
    def of(
        cls,
        bound_to: str,
        *,
        tokens: Iterable[str] = (),
        admin_tokens: Iterable[str] = (),
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
    ) -> Access:
        """What settings say.

        Args:
            bound_to: The address that the server listens on. On loopback it answers to loopback's names alone.
            tokens: As :func:`parse_tokens` takes them.
            admin_tokens: Likewise.
            hosts: Further names to answer to; on another address than loopback any is, if there are none.
            origins: See the attributes.

        Raises:
            ValueError: As :func:`parse_tokens`, or if an origin is none.
        """
        named = tuple(host.lower() for host in hosts)
        if hosts or is_loopback(bound_to) or bound_to == "localhost":
            # Also of the machine itself, whose health checks ask by them.
            named = (*LOOPBACK_NAMES, bound_to.lower(), *named)
        return cls(parse_tokens(tokens), parse_tokens(admin_tokens), named or None, tuple(origins))

    def is_open(self, path: str) -> bool:
        """Whether a path needs no token."""
        return any(
            path == one or (len(one) > 1 and one.endswith("/") and path.startswith(one)) for one in self.open_paths
        )

    def check(
        self, method: str, path: str, address: str, headers: Mapping[bytes, bytes], scheme: str = "http"
    ) -> Caller:
        """Who asks.

        Args:
            method: Of the request.
            path: Of the request.
            address: Where it comes from.
            headers: Names in lower case.
            scheme: "http" or "https", as the client sees it.

        Raises:
            RefusedError: If they may not.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self.hosts is not None and _without_port(host) not in self.hosts:
            raise RefusedError(
                421,
                "host",
                "this server does not answer to that host name; use the address that it printed, or name the host "
                "with --host-name",
            )
        origin = headers.get(b"origin")
        # A browser always says where a request that changes something comes from; other clients never do.
        if (
            origin is not None
            and method not in _SAFE_METHODS
            and (said := origin.decode("latin-1").lower()) not in self.origins
            and said.partition("://")[2] != host
        ):
            raise RefusedError(
                403, "origin", "pages of other origins may not use this server; add theirs with --origin"
            )
        return self._caller(path, address, headers)

    def _caller(self, path: str, address: str, headers: Mapping[bytes, bytes]) -> Caller:
        if not self.tokens and not self.admin_tokens:
            proxied = any(name in headers for name in _FORWARDED)
            return Caller(address, is_loopback(address) and not proxied)
        token = _token(headers)
        if token is not None:
            admin = _owner(token, self.admin_tokens)
            owner = _owner(token, self.tokens)  # always both, so that time says nothing
            if admin is not None:
                return Caller(admin, True)
            if owner is not None:
                return Caller(owner, False)
        if self.is_open(path) or not self.tokens:
            return Caller(address, False)
        said = "a token is needed" if token is None else "the token is not known"
        raise RefusedError(
            401,
            "token",
            f"{said}; send one as the header Authorization: Bearer TOKEN",
            {"WWW-Authenticate": 'Bearer realm="xmodal"'},
        )


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _owner(token: bytes, hashes: Mapping[str, str]) -> str | None:
    digest, owner = hashlib.sha256(token).hexdigest(), None
    for name, right in hashes.items():  # to the end, whichever it is
        if hmac.compare_digest(digest, right):
            owner = name
    return owner


def _token(headers: Mapping[bytes, bytes]) -> bytes | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    cookie = headers.get(b"cookie")
    if cookie is None or COOKIE.encode() not in cookie:
        return None
    try:
        morsel = SimpleCookie(cookie.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None or not morsel.value else morsel.value.encode("latin-1")


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
