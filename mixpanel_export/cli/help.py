"""Help texts that list options in sections, and parameters that also read the environment and the configuration file."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.types import FloatRange, IntRange

from mixpanel_export._config.environment import cleaned, home, variable

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

    from mixpanel_export._config.config_file import Defaults

NAMED_DB = "mixpanel_export.named_db"
"""The key of `--db` in the context's `meta`, for commands that also have a database argument."""

_DEFAULTS = "mixpanel_export.defaults"

_ORDER = ("Days", "What", "How fast", "Output", "Connection")

WIDTH = 100
"""The width of help texts in columns, if the terminal is that wide."""


class FromEnvironment(click.Parameter):
    """A parameter that reads its environment variable with `variable`.

    If neither the command line nor the environment has a value, the value is *setting* under `[defaults]` in
    the configuration file. Help texts and completion do not read the file.
    """

    def __init__(self, *args: Any, setting: str | None = None, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.setting = setting

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        value, source = super().consume_value(ctx, opts)
        if source is ParameterSource.DEFAULT and self.setting and not ctx.resilient_parsing:
            configured = getattr(_defaults(ctx), self.setting)
            if configured is not None:
                return configured, ParameterSource.DEFAULT_MAP
        return value, source

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return cleaned(super().resolve_envvar_value(ctx) or "") or None


def _defaults(ctx: click.Context) -> "Defaults":
    """Return the `[defaults]`. The file is read once per command."""
    from mixpanel_export._config.config_file import Defaults, config_file, read_defaults

    if _DEFAULTS not in ctx.meta:
        has_file = home() is not None or variable("MP_CONFIG_PATH") is not None
        ctx.meta[_DEFAULTS] = read_defaults(config_file()) if has_file else Defaults()
    defaults: Defaults = ctx.meta[_DEFAULTS]
    return defaults


class DatabaseArgument(FromEnvironment, click.Argument):
    """The database argument. The option `--db` (`named_db_option`) can be used instead."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        value, source = super().consume_value(ctx, opts)
        named = ctx.meta.get(NAMED_DB)
        if named is None:
            return value, source
        if source is ParameterSource.COMMANDLINE and value != named:
            raise click.UsageError(
                f"the argument {value} and --db {named} are different files; give only one of them", ctx
            )
        return named, ParameterSource.COMMANDLINE


class Option(FromEnvironment, click.Option):
    """An option that belongs to a *section* of its command's help text."""

    def __init__(self, *args: Any, section: str | None = None, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> "OptionHelpExtra":
        """Return the text in brackets that follows the help. Ranges without an upper bound are left out."""
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
        """Write the sections, followed by the options that belong to no section."""
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
