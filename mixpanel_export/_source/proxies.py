"""Determines the proxy for a URL from the environment, and the hosts that `NO_PROXY` exempts. Opens no connection."""

import os
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies

_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True, slots=True)
class ProxySetting:
    """A proxy, and the setting that it comes from."""

    url: str
    source: str
    """The environment variable of the proxy, or "the system's proxy settings"."""


def proxy_for(url: str) -> ProxySetting | None:
    """Return the proxy for *url*; None if none is set, or if `NO_PROXY` exempts the host.

    `http:` URLs are allowed only for loopback hosts. They use no proxy, because a proxy could read the credentials.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    settings = getproxies()
    proxy = (settings.get("https") or settings.get("all") or "").strip()
    if not proxy or is_exempt(parts.hostname or "", parts.port or 443, settings.get("no", "")):
        return None
    source = next(
        (name for name in _VARIABLES if os.environ.get(name, "").strip() == proxy),
        "the system's proxy settings",
    )
    return ProxySetting(proxy if "://" in proxy else f"http://{proxy}", source)


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether *no_proxy*, a comma-separated list, exempts the host.

    An entry is `*`, a host name (which includes its subdomains), an address, or a network such as `10.0.0.0/8` or
    `fe80::/10`. Names and addresses may have a port. IPv6 addresses may have brackets. Other entries have no effect.
    """
    return any(_exempts(entry.strip(), host.lower().rstrip("."), port) for entry in no_proxy.split(","))


def _exempts(entry: str, host: str, port: int) -> bool:
    scheme, separator, rest = entry.partition("://")
    if separator:
        if scheme.lower() not in {"https", "all"}:
            return False
        entry = rest
    name, entry_port = _without_port(entry.lower())
    if name == "*":
        return True
    if entry_port not in {"", str(port)}:
        return False
    with suppress(ValueError):
        return ip_address(host) in ip_network(name, strict=False)
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _without_port(entry: str) -> tuple[str, str]:
    """Return an entry's name, address or network without brackets, and its port ("" if it has none)."""
    if entry.startswith("["):
        address, _, rest = entry[1:].partition("]")
        return (address, rest[1:]) if rest.startswith(":") else (address + rest, "")
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, ""
