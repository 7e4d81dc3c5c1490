"""The address guard: turns a host name into addresses that may be asked.

Registries and redirects are written by others, so a name must not lead into this machine or a private network (server-side
request forgery, CWE-918). A connection is made to an address returned here, never to the name again, so a name server that
changes its answer in between (DNS rebinding) gains nothing.
"""

import ipaddress
import socket
from collections.abc import Callable

from caslon.corpus.collect.problem import ItemProblem, TryAgain

Resolve = Callable[[str, int], list[str]]
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def system_addresses(host: str, port: int) -> list[str]:
    """Return the addresses the system's resolver gives for a host, in its order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]).split("%")[0] for *_, address in found))


def allowed_addresses(host: str, port: int, *, allow_private: bool, resolve: Resolve = system_addresses) -> list[str]:
    """Return the addresses of a host; `fetch_failed` when one of them is private, loopback, link-local or reserved."""
    try:
        addresses = resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise TryAgain(f"the name {host} cannot be resolved: {error}") from error
    refused = [] if allow_private else [address for address in addresses if not is_public(address)]
    if refused:
        raise ItemProblem("fetch_failed", f"{host} leads to {refused[0]}, which is no public address")
    if not addresses:
        raise TryAgain(f"the name {host} has no address")
    return addresses


def is_public(address: str) -> bool:
    """Return whether an address is one of the public internet, also when IPv6 wraps an IPv4 address."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast
