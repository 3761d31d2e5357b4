"""Which addresses of the network a download may go to: those of the public internet, and networks that a person allows.

Addresses stand in published rows, so anybody may have written them, also one of a machine beside this one or of a cloud's metadata
service (169.254.169.254). Belongs here: the rule, and a session that cannot break it. Does not belong here: requests (`web.py`).

A name is resolved once for each connection and the connection is made to the address that was looked at, so that a name which
answers differently the second time gains nothing; a redirect is a connection like any other. Behind a proxy (HTTPS_PROXY) it is the
proxy that resolves names: of those only addresses written as such are looked at here.

MOLMO2_PRIVATE_NETWORKS names networks that may be asked all the same, such as the laboratory's own: `10.1.0.0/16, 127.0.0.1`.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from molmo2_assets.sources.outcome import SourceError

VARIABLE = "MOLMO2_PRIVATE_NETWORKS"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class PrivateAddress(Exception):
    """A host stands in a network that nobody allowed."""


def allowed_networks() -> tuple[Network, ...]:
    """Networks that the person allows. Raises SourceError naming what is none."""
    found = []
    for word in os.environ.get(VARIABLE, "").replace(",", " ").split():
        try:
            found.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            raise SourceError(f"{VARIABLE} names {word!r}, which is no network; write 10.1.0.0/16, or one address.") from None
    return tuple(found)


def is_allowed(address: Address, networks: tuple[Network, ...]) -> bool:
    """Whether a download may go there. An IPv4 address inside an IPv6 one is what counts."""
    inner = _inner(address)
    if any(inner in network for network in networks):
        return True
    return inner.is_global and not inner.is_multicast


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64), else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _choose(host: str, port: int, networks: tuple[Network, ...]) -> list[str]:
    """Addresses of a host that may be asked. Raises PrivateAddress where it has no other, socket.gaierror where it has none."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)]
    allowed = [text for text in found if is_allowed(ipaddress.ip_address(text.partition("%")[0]), networks)]
    if found and not allowed:
        raise _refusal(host, found[0])
    return list(dict.fromkeys(allowed))


def _refusal(host: str, address: str) -> PrivateAddress:
    at = "" if host.strip("[]") == address else f" is {address},"
    return PrivateAddress(f"{host}{at} not an address of the public internet; name its network in {VARIABLE} to allow it")


class _Checked:
    """A connection to an address that was looked at. `networks` is set on the class that a session makes of it."""

    networks: tuple[Network, ...] = ()

    def _new_conn(self: Any) -> socket.socket:
        name, fault = self._dns_host, None
        try:
            addresses = _choose(name, self.port, self.networks)
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error
        try:
            for address in addresses:
                self._dns_host = address  # certificates are checked against the name, which is put back before that
                try:
                    return super()._new_conn()  # type: ignore[misc,no-any-return]
                except (NewConnectionError, ConnectTimeoutError) as error:
                    fault = error
        finally:
            self._dns_host = name
        raise fault or NewConnectionError(self, f"{name} has no address")


class _Adapter(HTTPAdapter):
    def __init__(self, networks: tuple[Network, ...]) -> None:
        self.networks = networks
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        fields = {"networks": self.networks}
        pools = ((HTTPConnectionPool, HTTPConnection), (HTTPSConnectionPool, HTTPSConnection))
        self.poolmanager.pool_classes_by_scheme = {
            scheme: type("Pool", (pool,), {"ConnectionCls": type("Connection", (_Checked, connection), fields)})
            for scheme, (pool, connection) in zip(("http", "https"), pools, strict=True)
        }

    def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
        """Also every redirect comes through here: an address that is written as one is looked at before a proxy is asked for it."""
        host = urlsplit(request.url).hostname or ""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            pass  # a name: looked at when it is resolved
        else:
            if not is_allowed(address, self.networks):
                raise _refusal(host, host)
        return super().send(request, *arguments, **options)


def session() -> requests.Session:
    """A session that connects to no other address. Raises SourceError where the person's list of networks is none."""
    made = requests.Session()
    adapter = _Adapter(allowed_networks())
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made
