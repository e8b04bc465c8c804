"""The agent card: what other agents read before they call."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from a2a.utils.constants import (
    PROTOCOL_VERSION_0_3,
    PROTOCOL_VERSION_1_0,
    TransportProtocol,
)

from agno_sql.server.a2a.tasks import TEXT

if TYPE_CHECKING:
    from agno_sql.server.a2a import A2A

PATH: Final = "/a2a"
"""Where JSON-RPC is served, and in front of the paths of REST."""

_BEARER: Final = "bearer"


def card_of(name: str, options: A2A, *, is_authenticated: bool) -> AgentCard:
    """Return the card of an agent of that *name*."""
    url = options.url.rstrip("/") + PATH
    description = options.description or f"{name}, which remembers its conversations"
    card = AgentCard(
        name=name,
        description=description,
        version=version("agno-sql"),
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=binding, protocol_version=protocol)
            for binding, protocol in (
                (TransportProtocol.JSONRPC, PROTOCOL_VERSION_1_0),
                (TransportProtocol.HTTP_JSON, PROTOCOL_VERSION_1_0),
                (TransportProtocol.JSONRPC, PROTOCOL_VERSION_0_3),
            )
        ],
        capabilities=AgentCapabilities(
            streaming=True, push_notifications=False, extended_agent_card=False
        ),
        default_input_modes=[TEXT],
        default_output_modes=[TEXT],
        skills=[AgentSkill(id="chat", name=name, description=description, tags=["chat"])],
    )
    if is_authenticated:
        scheme = HTTPAuthSecurityScheme(scheme=_BEARER)
        card.security_schemes[_BEARER].CopyFrom(SecurityScheme(http_auth_security_scheme=scheme))
        card.security_requirements.append(SecurityRequirement(schemes={_BEARER: StringList()}))
    return card
