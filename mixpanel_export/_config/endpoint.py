"""The URLs of the APIs, for a Mixpanel region or for another server."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from mixpanel_export._config.environment import variable
from mixpanel_export.errors import ConfigError, RegionError

# From openapi/export.openapi.yaml in the repository mixpanel/docs.
_HOSTS = {
    "us": "https://data.mixpanel.com",
    "eu": "https://data-eu.mixpanel.com",
    "in": "https://data-in.mixpanel.com",
}
# From openapi/query.openapi.yaml.
_QUERY_HOSTS = {
    "us": "https://mixpanel.com",
    "eu": "https://eu.mixpanel.com",
    "in": "https://in.mixpanel.com",
}
_EXPORT_PATH = "/api/2.0/export"
_QUERY_PATH = "/api/query"
_ADVICE = "set MPX_API_URL to https://HOST[:PORT]"
_IPV4_LOOPBACK = IPv4Network("127.0.0.0/8")


def check_region(region: str) -> None:
    """Check a region's name.

    Raises:
        RegionError: Mixpanel has no such region.
    """
    if region not in _HOSTS:
        raise RegionError(
            f"there is no region {region!r}",
            advice="set MP_REGION or $region to us, eu or in",
            argument="region",
        )


def export_url(region: str, api_url: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return the URL of the export endpoint.

    The server is *api_url*, else `MPX_API_URL`, else Mixpanel's server for *region*.

    Raises:
        ConfigError: There is no such region, the server's URL has more than a scheme, a host and a port, or the URL
            uses http for a host that is not this machine.
    """
    return _base(_HOSTS, region, api_url, environ) + _EXPORT_PATH


def query_url(region: str, api_url: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return the URL of the Query API, without a final slash. See `export_url` for the server and the errors."""
    return _base(_QUERY_HOSTS, region, api_url, environ) + _QUERY_PATH


def _base(
    hosts: Mapping[str, str], region: str, api_url: str | None, environ: Mapping[str, str] | None
) -> str:
    check_region(region)
    base = api_url or variable("MPX_API_URL", environ)
    return _checked_base(base) if base else hosts[region]


def _checked_base(api_url: str) -> str:
    """Return the URL, rebuilt from its checked parts. Otherwise, httpx might find another host in the same string."""
    try:
        parts = urlsplit(api_url.strip())
        port = parts.port
    except ValueError:
        raise ConfigError("the API URL is not a valid URL", advice=_ADVICE) from None
    host = _checked_host(parts)
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(
            f"http://{host} would send the secret unencrypted", advice="set MPX_API_URL to an https URL"
        )
    netloc_host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{netloc_host}" + ("" if port is None else f":{port}")


def _checked_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    is_name = re.fullmatch(r"[\w.-]+", host) is not None
    bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"https", "http"} or not bare or not (is_name or _is_ipv6(host)):
        raise ConfigError(
            "the API URL may have a scheme, a host and a port, but no path, user or query",
            advice=_ADVICE,
        )
    return host


def _is_ipv6(host: str) -> bool:
    return re.fullmatch(r"[0-9a-f:.]*:[0-9a-f:.]*", host) is not None


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address == IPv6Address("::1") or address in _IPV4_LOOPBACK
