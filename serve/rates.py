"""How often a client may ask: a bucket of tokens each, refilled at a steady rate."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from functools import lru_cache

_MOST_CLIENTS = 10_000


class TokenBuckets:
    """A bucket a client. Of too many clients, the one that has asked for nothing longest is forgotten.

    Args:
        per_second: Tokens that flow in.
        burst: What a bucket holds, at least 1; a new one is full.
        most_clients: Buckets that are kept.
    """

    def __init__(self, per_second: float, burst: int, *, most_clients: int = _MOST_CLIENTS) -> None:
        if not per_second > 0 or burst < 1 or most_clients < 1:
            raise ValueError(
                f"a rate must be positive and a burst at least 1, got per_second={per_second}, burst={burst}, "
                f"most_clients={most_clients}"
            )
        self.per_second, self.burst, self.most_clients = per_second, burst, most_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and when that was

    def take(self, client: str, now: float) -> float:
        """Take a token.

        Args:
            client: Whose bucket.
            now: Seconds on a clock that never goes back.

        Returns:
            0 if there was one, else the seconds until there is; then nothing was taken.
        """
        left, then = self._buckets.pop(client, (float(self.burst), now))
        left = min(self.burst, left + (now - then) * self.per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self.per_second
        self._buckets[client] = (left if wait else left - 1, now)
        if len(self._buckets) > self.most_clients:
            self._buckets.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._buckets)


@lru_cache(maxsize=4096)
def client_key(client: str) -> str:
    """Whose bucket an address draws from: an IPv6 host has a whole /64 of addresses to choose from."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return client
