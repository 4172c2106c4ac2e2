"""Determines the tables that `mpx sync` brings up to date, from sections of the configuration file or from options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.errors import ConfigError

if TYPE_CHECKING:
    from mixpanel_export._config.sync_sections import SyncSection
    from mixpanel_export.credentials import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncTask:
    """One table and selection to bring up to date."""

    db: str
    table: str = "events"
    name: str | None = None
    """The name of the section; None for a task from options."""
    account: str | None = None
    project_id: str | None = None
    region: str | None = None
    events: tuple[str, ...] | None = None
    where: str | None = None
    since: str | None = None
    lookback: int | None = None
    budget: int | None = None
    flatten: bool = False
    publish: str | None = None
    """The destination of the data set that is updated after the sync."""
    profiles: str | None = None
    """The table of profiles to bring up to date; None for no profiles."""
    publish_profiles: str | None = None
    """The destination of the data set of the profiles."""
    zone: str | None = None
    deduped: bool = True

    @property
    def title(self) -> str:
        """The name of the task in messages."""
        return self.name or self.table


def tasks_of_sections(names: Sequence[str], default: SyncTask) -> list[SyncTask]:
    """Return the tasks of the sections with these *names*, or of all sections if there are none.

    If a section does not have a key, the value comes from *default*.

    Raises:
        ConfigError: The file does not have the section, or a section is invalid.
    """
    from mixpanel_export._config.config_file import config_file
    from mixpanel_export._config.sync_sections import read_sync_sections

    path = config_file()
    sections = read_sync_sections(path)
    for name in names:
        if name not in sections:
            raise ConfigError(
                f"there is no section [sync.{name}] in {path}",
                advice=did_you_mean(name, sections) + "`mpx sync --init` adds one",
            )
    if not sections:
        raise ConfigError(
            f"there is no section [sync.NAME] in {path}", advice="add one with `mpx sync --init`"
        )
    return [_of_section(name, sections[name], default) for name in names or sections]


def _of_section(name: str, section: "SyncSection", default: SyncTask) -> SyncTask:
    return SyncTask(
        name=name,
        db=section.db or default.db,
        table=section.table or "events",
        account=section.account,
        project_id=section.project_id,
        region=section.region,
        events=section.events,
        where=section.where,
        since=section.since,
        lookback=default.lookback if section.lookback is None else section.lookback,
        budget=default.budget if section.budget is None else section.budget,
        flatten=default.flatten if section.flatten is None else section.flatten,
        publish=section.publish or default.publish,
        publish_profiles=section.publish_profiles or default.publish_profiles,
        profiles=default.profiles if section.profiles is None else section.profiles or None,
    )


def tasks_of_table(task: SyncTask, credentials: "Credentials", wait: float) -> list[SyncTask]:
    """Return a task for each of the table's selections in the ledger; *task* itself if there are none.

    If *task* has event names or a filter, only that selection is used. The zone and the removal of duplicates are the
    same as for the table's newest batch.

    Raises:
        DatabaseLockedError: Another process still holds the file after *wait* seconds.
    """
    from dataclasses import replace

    from mixpanel_export._database.coverage import coverages
    from mixpanel_export._database.ledger import read_batches
    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._database.schema import check_ledger
    from mixpanel_export._database.target_days import read_targets
    from mixpanel_export._model import Selection
    from mixpanel_export._source.parameters import checked_names

    if not has_content(database_path(task.db)):
        return [task]
    with open_read_only(task.db, wait) as connection:
        check_ledger(connection)
        all_coverages = coverages(read_batches(connection), {}, read_targets(connection))
    selection = Selection(credentials.project_id, checked_names(task.events), task.where)
    has_selection = task.events is not None or task.where is not None
    tasks = [
        replace(
            task,
            table=coverage.table,
            events=coverage.selection.events,
            where=coverage.selection.where,
            zone=task.zone or coverage.options.zone,
            deduped=coverage.options.deduplicated,
        )
        for coverage in all_coverages
        if coverage.table.lower() == task.table.lower()
        and coverage.selection.project == credentials.project_id
        and (coverage.selection == selection or not has_selection)
    ]
    return tasks or [task]


def check_sections(ctx: click.Context, names: Sequence[str], *, everything: bool) -> None:
    """Reject options that cannot be combined with sections, because the sections set these values.

    Raises:
        UsageError: *names* and *everything* are both given, or sections and one of these options.
    """
    from click.core import ParameterSource

    from mixpanel_export.cli import option_of

    if names and everything:
        raise click.UsageError("--all selects every section; leave out the names or --all")
    for name in (
        "since",
        "db",
        "table",
        "events",
        "where",
        "account",
        "project_id",
        "region",
        "project_timezone",
    ):
        typed = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and (names or everything):
            raise click.UsageError(
                f"{option_of(name)} cannot be combined with a section; set it in the section instead"
            )
