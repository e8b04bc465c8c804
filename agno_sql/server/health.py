"""Whether the process lives, and whether it can work."""

from typing import Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from agno_sql.server.openapi import problems
from agno_sql.server.refusals import StoppingError
from agno_sql.server.served import TheServed

router: Final = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="Tell that the process answers")
async def healthz() -> Health:
    """Answer, whatever the database does."""
    return Health()


@router.get("/readyz", summary="Tell whether the server can work", responses=problems(503))
async def readyz(served: TheServed) -> Health:
    """Answer if the database does, its tables are of this version, and the server does not stop."""
    if served.ongoing.is_stopping:
        raise StoppingError("the server stops")
    await served.memory.check()
    return Health()
