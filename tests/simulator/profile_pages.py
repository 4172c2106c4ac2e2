"""Shared by the tests of profiles: a small project, and requests for its pages."""

from typing import Any

import httpx
from endpoint import client, simulator

from mixpanel_export.simulator import ProfileRules, Simulator

PATH = "/api/query/engage"
PROJECT = {"project_id": "12345"}
UNCACHED = "request for page in uncached query for params"


def project(profiles: int = 25, page_size: int = 10, **options: Any) -> Simulator:
    """Return a small project with profiles."""
    rules = {name: options.pop(name) for name in ProfileRules.__dataclass_fields__ if name in options}
    return simulator(profiles=profiles, profile_rules=ProfileRules(page_size=page_size, **rules), **options)


async def page(sim: Simulator, path: str = PATH, **params: str) -> httpx.Response:
    """Request one page as a form."""
    async with client(sim) as http:
        return await http.post(path, data=PROJECT | params)


def rows(response: httpx.Response) -> dict[str, Any]:
    """Return the properties of each profile in a response, by its id as text."""
    assert response.status_code == 200, response.text
    return {str(each["$distinct_id"]): each.get("$properties", {}) for each in response.json()["results"]}
