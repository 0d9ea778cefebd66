"""What the guest says of its network, against what the config drive told it.

The guest is not trusted: see :mod:`amphora_mkimage.boot.report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amphora_mkimage.boot.management import MAC, Management


@dataclass(frozen=True)
class Card:
    """A network card of the guest."""

    name: str
    mac: str
    mtu: int


@dataclass(frozen=True)
class GuestNetwork:
    """Cards and routes of the guest.

    :param routes: what ``ip route`` prints, by IP version
    :param namespace: MAC addresses of the cards in the agent's network namespace
    """

    cards: tuple[Card, ...]
    routes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    namespace: tuple[str, ...] = ()

    def card(self) -> Card | None:
        """Return the card of the management network, if the guest has it."""
        return next((card for card in self.cards if card.mac == MAC), None)

    def unreachable(self, network: Management) -> list[str]:
        """Return one line for each family in which nothing that the guest sends can reach the controller."""
        card = self.card()
        if card is None:
            return [f"the guest has no network card with the address {MAC}, which the config drive names"]
        return [
            f"no default route for IPv{subnet.version} on {card.name}:"
            f" nothing that the guest sends reaches a controller in another network ({subnet.controller})"
            for subnet in network.subnets
            if subnet.gateway and not any(_is_default(route, card) for route in self.routes.get(subnet.version, ()))
        ]

    def problems(self, network: Management) -> list[str]:
        """Return everything that is wrong, one line each."""
        found, card = self.unreachable(network), self.card()
        if card is not None and card.mtu != network.mtu:
            found.append(f"{card.name} has MTU {card.mtu}, the config drive says {network.mtu}")
        return found

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of a report for people."""
        card = self.card()
        rows = [("network", f"{card.name}, MTU {card.mtu}")] if card else []
        return rows + [("", route) for version in sorted(self.routes) for route in self.routes[version]]

    def as_json(self) -> dict[str, Any]:
        """Return it with stable keys; what is not known is null."""
        card = self.card()
        return {
            "card": card.name if card else None,
            "mtu": card.mtu if card else None,
            "routes": {f"ipv{version}": list(self.routes.get(version, ())) for version in (4, 6)},
        }


def _is_default(route: str, card: Card) -> bool:
    words = route.split()
    return words[:1] == ["default"] and words[words.index("dev") + 1 :][:1] == [card.name] if "dev" in words else False
