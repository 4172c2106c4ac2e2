"""The help is correct: every command explains its options, and its examples are accepted."""

import re

import click
import pytest
from shell import ALL, parsed, words_of

EXAMPLES = [
    line.strip()
    for command in ALL.values()
    for line in (command.epilog or "").splitlines()
    if re.match(r"  mpx \w", line)
]


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_and_an_example_of_itself(name: str) -> None:
    """Every command and option has a help text, and lists of commands show whole sentences."""
    command = ALL[name]
    assert command.help
    assert (command.short_help or "").endswith(".")
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    assert f"  mpx {name}" in (command.epilog or "")


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_can_be_typed(line: str) -> None:
    """Every example is a command line that `mpx` accepts."""
    parsed(words_of(line))
