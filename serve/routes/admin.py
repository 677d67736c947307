"""What only its owner may do to a server."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serve.deployed import Deployed
from serve.problems import Problem
from serve.routes.answers import Answer, service_of
from serve.schemas import Reloaded, ReloadRequest

router = APIRouter(prefix="/v1", tags=["server"])


@router.post("/reload", summary="Serve another model and index", response_model=Reloaded)
async def reload(request: Request, body: ReloadRequest) -> Response:
    """Load, check and swap in; no request fails meanwhile. What fails its self-check changes nothing (409).

    It needs the admin token, or, where no token is set, a client on this machine.
    """
    if not request.scope.get("state", {}).get("admin"):
        raise Problem(403, "a reload needs the admin token (--admin-token), or a client on the server's own machine")
    service = service_of(request)
    after, before = await service.reload(body.model, body.index)
    return Answer({**_served(after), "before": _served(before)})


def _served(deployed: Deployed) -> dict[str, Any]:
    return {
        "space_id": deployed.space_id,
        "tracks": len(deployed.catalogue),
        "model": deployed.name,
        "index": deployed.index_place,
    }
