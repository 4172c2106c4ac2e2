"""The pages of `mixpanel_export.integrations`, and the blocks in them."""

import pkgutil
import re
from importlib import import_module

from mixpanel_export import integrations

NAMES = [module.name for module in pkgutil.iter_modules(integrations.__path__) if not module.ispkg]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    """Return the text of a page."""
    return import_module(f"{integrations.__name__}.{name}").__doc__ or ""


def blocks(name: str, language: str) -> list[str]:
    """Return the blocks of a page in *language*."""
    return [block for kind, block in _BLOCK.findall(page(name)) if kind == language]


def command_lines(name: str) -> list[str]:
    """Return the command lines of `mpx` in a page, without the path of the program."""
    text = "\n".join(block for _, block in _BLOCK.findall(page(name)))
    image = " ".join(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE))
    inside = ["mpx " + " ".join(re.findall(r'"([^"]*)"', image))] if image else []
    lines = re.findall(r"(?:^|[ /])(mpx [a-z][^\n&]*)", text, re.MULTILINE)
    return [*inside, *lines]
