"""Sounds by URL, from hosts that the server was told to trust and from no other; without such a list, from none.

Whoever lets a client name a URL lets it look into the server's own network. So a host is on the list by its exact name,
its addresses must be public ones unless the list itself says which address it is, the connection goes to the very
address that was looked at, and a redirect is followed on the same host alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import h11

from serve.decoding import OverloadedError
from serve.problems import Problem

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = 3
_AT_ONCE = 8
_LONGEST_URL = 2000
_CHUNK_BYTES = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class AllowedHost:
    """A host from which sounds may be fetched.

    Attributes:
        name: Its name, or an address.
        port: Its port; None for the one of the scheme.
        address: Where it is, for a host that has no public address; None: where the resolver says.
    """

    name: str
    port: int | None = None
    address: str | None = None

    @classmethod
    def of(cls, text: str) -> AllowedHost:
        """Read ``cdn.example``, ``cdn.example:8443``, ``10.0.0.5`` or ``store.internal=10.0.0.5``.

        Raises:
            ValueError: If it is none of them.
        """
        place, _, address = text.strip().lower().partition("=")
        try:
            parts = urlsplit(f"//{place}")
            name, port = parts.hostname or "", parts.port
            plain = not (parts.username or parts.path or parts.query or parts.fragment) and "*" not in name
            if not (name and plain and place.isascii()) or (not address and "=" in text):
                raise ValueError(place)
            if address:
                ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(
                f"fetch_host is a host such as cdn.example, cdn.example:8443 or store.internal=10.0.0.5, got {text!r}"
            ) from None
        return cls(name, port, address or (name if _is_address(name) else None))


@dataclass(frozen=True)
class _Place:
    """A URL, taken apart and allowed."""

    scheme: str
    host: AllowedHost
    port: int
    target: str
    name: str

    @property
    def authority(self) -> str:
        shown = f"[{self.host.name}]" if ":" in self.host.name else self.host.name
        return shown if self.port == _PORTS[self.scheme] else f"{shown}:{self.port}"


class Fetcher:
    """Fetches files from some hosts.

    Args:
        hosts: The list, in the form of :meth:`AllowedHost.of`; empty: nothing is ever fetched.
        max_bytes: Longest file.
        seconds: What fetching one may take, from the look-up of its name to its last byte.

    Raises:
        ValueError: If a host is none.
    """

    def __init__(self, hosts: Sequence[str], *, max_bytes: int, seconds: float) -> None:
        self.hosts = [AllowedHost.of(host) for host in hosts]
        self.max_bytes, self.seconds = max_bytes, seconds
        self._under_way = 0

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Fetched]:
        """A file, to be read within the block.

        Raises:
            Problem: 403 if its host is not on the list, 422 if it cannot be had, 413 if it is too large.
            OverloadedError: If too many are being fetched.
        """
        place = self._allowed(url)
        if self._under_way >= _AT_ONCE:
            raise OverloadedError(f"{self._under_way} files are being fetched already; try again in a moment")
        self._under_way += 1
        until = asyncio.get_running_loop().time() + self.seconds
        fetched: Fetched | None = None
        try:
            for _ in range(_REDIRECTS + 1):
                fetched = Fetched(place, self.max_bytes, until)
                elsewhere = await fetched.begin()
                if elsewhere is None:
                    yield fetched
                    return
                await fetched.close()
                place = self._next(place, elsewhere)
            raise _failed(place, f"redirects more than {_REDIRECTS} times")
        finally:
            self._under_way -= 1
            if fetched is not None:
                await fetched.close()

    def _allowed(self, url: str) -> _Place:
        if not self.hosts:
            raise Problem(403, "this server fetches nothing from elsewhere; send the file itself", kind="fetch-refused")
        visible = url.isascii() and all("!" <= sign <= "~" and sign not in '"<>\\^`{|}' for sign in url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if not visible or len(url) > _LONGEST_URL or parts.scheme not in _PORTS or not parts.hostname:
            raise Problem(422, "url must be an http or https address, with what is not ASCII written as %XX")
        if parts.username is not None or parts.password is not None:
            raise Problem(422, "url may not hold a name or a password")
        wanted = port or _PORTS[parts.scheme]
        for host in self.hosts:
            if host.name == parts.hostname and wanted == (host.port or _PORTS[parts.scheme]):
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                return _Place(parts.scheme, host, wanted, target, unquote(parts.path).rpartition("/")[2])
        raise Problem(
            403, f"this server may not fetch from {parts.hostname[:100]}; send the file itself", kind="fetch-refused"
        )

    def _next(self, place: _Place, elsewhere: str) -> _Place:
        """Where a redirect leads, if that is on the same host and no less safe."""
        try:
            found = self._allowed(urljoin(f"{place.scheme}://{place.authority}{place.target}", elsewhere))
        except Problem:
            found = None
        if found is None or found.host.name != place.host.name or (place.scheme, found.scheme) == ("https", "http"):
            raise _failed(place, "redirects to another host, which is not followed")
        return replace(found, name=found.name or place.name)


class Fetched:
    """A file that is being fetched; read like an upload (:class:`serve.decoding.ReadableUpload`).

    Attributes:
        name: What the file is called in its URL.
    """

    def __init__(self, place: _Place, max_bytes: int, until: float) -> None:
        self.name = place.name
        self._place, self._left, self._until, self._max = place, max_bytes, until, max_bytes
        self._http = h11.Connection(h11.CLIENT)
        self._writer: asyncio.StreamWriter | None = None

    async def begin(self) -> str | None:
        """Ask for the file; gives where it redirects to, or None if the file comes."""
        place = self._place
        try:
            async with asyncio.timeout_at(self._until):
                address = await _address_of(place)
                secure = ssl.create_default_context() if place.scheme == "https" else None
                self._reader, self._writer = await asyncio.open_connection(
                    address, place.port, ssl=secure, server_hostname=place.host.name if secure else None
                )
                headers = [("Host", place.authority), ("Accept-Encoding", "identity"), ("Connection", "close"),
                           ("User-Agent", "xmodal")]  # fmt: skip
                asked = self._http.send(h11.Request(method="GET", target=place.target, headers=headers))
                self._writer.write((asked or b"") + (self._http.send(h11.EndOfMessage()) or b""))
                head: Any = await self._event()
                while isinstance(head, h11.InformationalResponse):
                    head = await self._event()
        except TimeoutError:
            raise _failed(place, "did not answer in time") from None
        except (OSError, h11.ProtocolError) as error:
            raise _failed(place, f"cannot be asked ({type(error).__name__})") from None
        said = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        if head.status_code in (301, 302, 303, 307, 308) and "location" in said:
            return said["location"]
        if head.status_code != 200:
            raise _failed(place, f"answers {head.status_code}")
        if said.get("content-encoding", "identity").lower() != "identity":
            raise _failed(place, "sends the file compressed")
        if int(said.get("content-length", "0")) > self._max:  # h11 has seen that it is a number
            raise self._too_large()
        return None

    async def read(self, size: int = -1) -> bytes:
        """Some bytes more; none at the end.

        Raises:
            Problem: 413 when there are too many, 422 if they do not come.
        """
        try:
            async with asyncio.timeout_at(self._until):
                event = await self._event()
        except TimeoutError:
            raise _failed(self._place, "sends the file too slowly") from None
        except (OSError, h11.ProtocolError):
            raise _failed(self._place, "broke off") from None
        if not isinstance(event, h11.Data):
            return b""
        self._left -= len(event.data)
        if self._left < 0:
            raise self._too_large()
        return bytes(event.data)

    async def close(self) -> None:
        """Leave the host."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_CHUNK_BYTES))
        return event

    def _too_large(self) -> Problem:
        return Problem(413, f"a sound may have {self._max} bytes, and the one at this url has more")


async def _address_of(place: _Place) -> str:
    """The address to connect to: the one of the list, or a public one of the name."""
    if place.host.address is not None:
        return place.host.address
    found = await asyncio.get_running_loop().getaddrinfo(place.host.name, place.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise _failed(place, "has no public address")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address belongs to the Internet, and to no network or machine of one's own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # such as one with a scope
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner:
            return inner.is_global and not inner.is_multicast
    return parsed.is_global and not parsed.is_multicast


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _failed(place: _Place, why: str) -> Problem:
    return Problem(422, f"the file cannot be fetched: {place.host.name} {why}", kind="fetch-failed")
