"""Help is true: every command has an example that it takes, and the README and help name the same things."""

import re
from pathlib import Path

import click
import pytest
from shell import ALL, parsed, words_of

from mixpanel_export.cli import COMMANDS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


EXAMPLES = [
    line.strip()
    for command in ALL.values()
    for line in (command.epilog or "").splitlines()
    if re.match(r"  mpx \w", line)
]


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_and_an_example_of_itself(name: str) -> None:
    """Nobody has to read the source to use a command or an option, and lists show a sentence that is not cut."""
    command = ALL[name]
    assert command.help
    assert (command.short_help or "").endswith(".")
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    assert f"  mpx {name}" in (command.epilog or "")


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_can_be_typed(line: str) -> None:
    """What help shows is taken as it stands."""
    parsed(words_of(line))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    """Who reads the README meets every command once."""
    assert re.search(rf"^mpx {name}\b", README, re.MULTILINE)


def test_the_readme_names_no_option_that_is_not_there() -> None:
    """Each option in its text is one of some command, and those behind a command are that command's."""
    there = {word for command in ALL.values() for option in command.params for word in option.opts}
    others = {"--group", "--upgrade"}  # of pip
    text = re.sub(r"`python benchmarks/.*?`|^python.*$", "", README, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))
    assert named - there - others <= {"--help"}
    for line in re.findall(r"^mpx .*$", README, re.MULTILINE):
        shown, _, _ = line.partition("   #")
        name = next(
            name for name in sorted(ALL, key=len, reverse=True) if f"{shown} ".startswith(f"mpx {name} ")
        )
        own = {word for option in ALL[name].params for word in option.opts} | {"--help"}
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown)) <= own, line


@pytest.mark.parametrize("line", re.findall(r"^mpx [^\[\n]*?$", README, re.MULTILINE))
def test_every_line_of_the_readme_can_be_typed(line: str) -> None:
    """A line without brackets for what may be left out is one to copy, whatever group its command is in."""
    parsed(words_of(line))
