"""Help texts: options in sections, and ranges in words."""

from typing import TYPE_CHECKING, Any

import click
from click.types import FloatRange, IntRange

from mixpanel_export._environment import cleaned

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

_ORDER = ("Days", "What", "How fast", "Output", "Connection")

WIDTH = 100
"""Columns of a help text, where the terminal has as many."""


class FromEnvironment(click.Parameter):
    """A parameter whose environment variable is read as `variable` reads it."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return cleaned(super().resolve_envvar_value(ctx) or "") or None


class Argument(FromEnvironment, click.Argument):
    """An argument that may come from the environment."""


class Option(FromEnvironment, click.Option):
    """An option that belongs to a *section* of the help text of its command."""

    def __init__(self, *args: Any, section: str | None = None, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> "OptionHelpExtra":
        """Return what stands in brackets after the help. Ranges without an upper bound are left out."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        if isinstance(self.type, IntRange | FloatRange) and self.type.max is not None:
            extra["range"] = f"{self.type.min} to {self.type.max}"
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


class SectionedCommand(click.Command):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, and at the end the options of no section."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in _ORDER}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            section = getattr(parameter, "section", None)
            (sections.setdefault(section, []) if section else others).append(record)
        for name, records in [*sections.items(), ("Other options", others)]:
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
