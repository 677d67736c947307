"""An async client of the server.

    async with Client("http://127.0.0.1:8000") as music:
        found = await music.search("slow sad piano", k=5, where=["year>=1990"])
        for hit in found["hits"]:
            print(hit["rank"], hit["title"], hit["score"])

Answers are the server's JSON as dicts and lists; ``/openapi.json`` describes them. What the server refuses is raised as
:class:`ServeError` with its sentence. A request that the server has no room for (429), or that finds it loading (503),
is sent again after the time that the server names, a few times.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx2

from xmodal.errors import XmodalError

_LONGEST_WAIT_SECONDS = 10.0


class ServeError(XmodalError):
    """A request that the server refused, or that did not reach it.

    Attributes:
        status: The HTTP status; 0 if there was no answer.
        kind: What is wrong in a word, such as ``unknown-id`` or ``queue-full``; the last part of the problem's type.
        detail: What is wrong in a sentence.
        errors: Parts of the request that were refused: ``where`` and ``problem`` of each.
    """

    def __init__(self, status: int, kind: str, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(f"{detail} ({status} {kind})" if status else detail)
        self.status, self.kind, self.detail, self.errors = status, kind, detail, list(errors)


class Client:
    """A connection to one server; an async context manager.

    Args:
        url: Its address, such as ``http://127.0.0.1:8000``.
        token: Sent with every request, where the server asks for one.
        timeout_seconds: How long to wait for an answer.
        retries: How often a request that is refused for want of room is sent again.
        transport: How requests travel; None for the network.

    Raises:
        ServeError: From every method: if the server refuses the request or cannot be reached.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.url, self.retries = url, retries
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=timeout_seconds, transport=transport)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def close(self) -> None:
        """Close the connections, where the client is no context manager."""
        await self._http.aclose()

    async def info(self) -> dict[str, Any]:
        """What is served: the model's space, numbers, limits."""
        return await self._json("GET", "/v1/info")

    async def wait_ready(self, seconds: float = 120.0) -> None:
        """Wait until the server answers requests; raises the last error when the time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            try:
                await self._json("GET", "/ready", again=0)
                return
            except ServeError as error:
                if loop.time() >= until or error.status not in (0, 503):
                    raise
            await asyncio.sleep(min(0.2, max(0.0, until - loop.time())))

    async def search(
        self,
        query: str | None = None,
        *,
        terms: Sequence[Mapping[str, Any]] | None = None,
        k: int = 20,
        offset: int = 0,
        where: Sequence[str] = (),
        moments: bool = True,
        group: str | None = None,
        diversity: float | None = None,
        duplicates: float | None = None,
        breadth: int | None = None,
        tags: int = 5,
    ) -> dict[str, Any]:
        """The tracks that answer a query: ``hits``, best first, ``next_offset`` and ``space_id``.

        Args:
            query: One line, such as ``"piano" + id:clip-1 - 0.5 * "vocals"``; or none, and ``terms``.
            terms: Each of ``text``, ``track``, ``audio`` (what :meth:`upload` gave) or ``vector``, and a ``weight``.
            k: How many hits.
            offset: Hits to leave out first.
            where: Conditions on the metadata, all of which must hold: ``genre=rock|jazz``, ``year>=1990``.
            moments: Look for the seconds that answer.
            group: List one hit of each value of this key, such as artist.
            diversity: Near 0 only the score counts, near 1 difference.
            duplicates: Leave out what is this near to a better hit.
            breadth: How much an approximate index looks at.
            tags: Tags of each hit.
        """
        body: dict[str, Any] = {"k": k, "offset": offset, "where": list(where), "moments": moments, "tags": tags}
        said = {"query": query, "group": group, "diversity": diversity, "duplicates": duplicates, "breadth": breadth}
        body |= {name: value for name, value in said.items() if value is not None}
        if terms is not None:
            body["terms"] = [dict(term) for term in terms]
        return await self._json("POST", "/v1/search", json=body)

    async def similar(self, id: str, *, k: int = 20, offset: int = 0, where: Sequence[str] = ()) -> dict[str, Any]:
        """The tracks nearest to a stored one, which is left out."""
        return await self._json("GET", "/v1/similar", params={"id": id, "k": k, "offset": offset, "where": list(where)})

    async def embed_texts(self, texts: Sequence[str]) -> list[list[float]]:
        """The unit vector of each text; as many requests as the server's limit asks for."""
        if isinstance(texts, str):
            raise ValueError("embed_texts takes a list of texts, got one string; wrap it in a list")
        most = int((await self.info())["limits"]["texts"])
        found: list[list[float]] = []
        for first in range(0, len(texts), most):
            body = {"texts": list(texts[first : first + most])}
            found += (await self._json("POST", "/v1/embed/text", json=body))["vectors"]
        return found

    async def embed_audio(
        self, sound: str | os.PathLike[str] | BinaryIO | None = None, *, id: str | None = None, windows: bool = False
    ) -> dict[str, Any]:
        """The unit ``vector`` of a sound, or of a stored track by its id; with ``windows`` that of each window too."""
        params = {"windows": windows} | ({} if id is None else {"id": id})
        if sound is None:
            return await self._json("POST", "/v1/embed/audio", params=params)
        return await self._send("/v1/embed/audio", sound, params=params)

    async def upload(self, sound: str | os.PathLike[str] | BinaryIO) -> dict[str, Any]:
        """Send a sound to search by; its ``audio`` is a term of queries for ``expires_seconds``."""
        return await self._send("/v1/uploads", sound)

    async def tag(
        self,
        tracks: Sequence[str] | None = None,
        *,
        sound: str | os.PathLike[str] | BinaryIO | None = None,
        tags: Sequence[str | Mapping[str, str]] | None = None,
        top: int | None = None,
    ) -> dict[str, Any]:
        """The tags of stored tracks, by the server's vocabulary or by ``tags``; or those of a sound."""
        if sound is not None:
            return await self._send("/v1/tag", sound)
        body = {"tracks": list(tracks or ()), "tags": None if tags is None else list(tags), "top": top}
        return await self._json("POST", "/v1/tag", json=body)

    async def tracks(self, *, where: Sequence[str] = (), title: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """All tracks of the catalogue, or those that fulfil the conditions; pages are fetched as they are needed."""
        offset: int | None = 0
        while offset is not None:
            params = {"offset": offset, "limit": 200, "where": list(where)} | ({} if title is None else {"q": title})
            page = await self._json("GET", "/v1/tracks", params=params)
            for track in page["tracks"]:
                yield track
            offset = page["next_offset"]

    async def track(self, id: str) -> dict[str, Any]:
        """One track, with its windows and all tags."""
        return await self._json("GET", "/v1/track", params={"id": id})

    async def facets(self) -> list[dict[str, Any]]:
        """What tracks can be filtered by."""
        fields: list[dict[str, Any]] = (await self._json("GET", "/v1/facets"))["fields"]
        return fields

    async def vocabulary(self) -> list[dict[str, Any]]:
        """The tags, with their numbers of tracks."""
        tags: list[dict[str, Any]] = (await self._json("GET", "/v1/tags"))["tags"]
        return tags

    async def map(self) -> dict[str, Any]:
        """Where the tracks lie on two axes."""
        return await self._json("GET", "/v1/map")

    async def waveform(self, id: str, points: int = 200) -> dict[str, Any]:
        """The peaks of a track."""
        return await self._json("GET", "/v1/waveform", params={"id": id, "points": points})

    async def download(self, id: str, path: str | os.PathLike[str]) -> int:
        """Write the file of a track to a path, which appears when it is complete; gives the number of bytes."""
        target = Path(path)
        aside = target.with_name(f".{target.name}.partial")
        try:
            async with self._stream("GET", "/v1/audio", params={"id": id}) as answer:
                count = 0
                with aside.open("wb") as file:
                    async for chunk in answer.aiter_bytes():
                        count += file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        return count

    async def reload(self, *, model: str | None = None, index: str | None = None) -> dict[str, Any]:
        """Serve another model and index (paths on the server); the token must be the admin's."""
        return await self._json("POST", "/v1/reload", json={"model": model, "index": index})

    async def _send(
        self, path: str, sound: str | os.PathLike[str] | BinaryIO, *, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        if isinstance(sound, str | os.PathLike):
            content = await asyncio.to_thread(Path(sound).read_bytes)
            name = Path(sound).name
        else:
            content, name = await asyncio.to_thread(sound.read), str(getattr(sound, "name", "sound"))
        return await self._json("POST", path, files={"file": (name, content)}, params=params)

    async def _json(self, method: str, path: str, *, again: int | None = None, **options: Any) -> dict[str, Any]:
        left = self.retries if again is None else again
        while True:
            try:
                answer = await self._http.request(method, path, **options)
            except httpx2.TransportError as error:
                raise self._unreached(error) from error
            if answer.is_success:
                found: dict[str, Any] = answer.json()
                return found
            wait = _wait_seconds(answer)
            if left <= 0 or wait is None:
                raise _refusal(answer)
            left -= 1
            await asyncio.sleep(wait)

    @asynccontextmanager
    async def _stream(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx2.Response]:
        try:
            async with self._http.stream(method, path, **options) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal(answer)
                yield answer
        except httpx2.TransportError as error:
            raise self._unreached(error) from error

    def _unreached(self, error: httpx2.TransportError) -> ServeError:
        said = "did not answer in time" if isinstance(error, httpx2.TimeoutException) else "cannot be reached"
        return ServeError(0, "unreached", f"the server at {self.url} {said} ({type(error).__name__}); is it running?")


def _wait_seconds(answer: httpx2.Response) -> float | None:
    """How long to wait before the same request may succeed; None if it will not."""
    after = answer.headers.get("retry-after", "")
    if answer.status_code not in (429, 503) or not after.isdigit() or int(after) > _LONGEST_WAIT_SECONDS:
        return None
    return float(after)


def _refusal(answer: httpx2.Response) -> ServeError:
    try:
        problem = answer.json()
        kind, detail, errors = problem["type"].rpartition(":")[2], problem["detail"], problem.get("errors", ())
    except (ValueError, KeyError, TypeError, AttributeError):  # something between here and the server answered
        kind, detail, errors = "no-problem-document", f"the answer was {answer.status_code} {answer.reason_phrase}", ()
    return ServeError(answer.status_code, kind, detail, errors)
