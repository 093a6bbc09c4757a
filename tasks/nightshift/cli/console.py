"""Where tables, lines and bars are printed. Names in them are strangers': no markup, no emoji."""

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

FILE_WIDTH = 240


def console() -> Console:
    """For tables: as wide as the terminal, and never cut when the output goes to a file."""
    found = Console(highlight=False, markup=False, emoji=False)
    return (
        found if found.is_terminal else Console(highlight=False, markup=False, emoji=False, width=FILE_WIDTH)
    )


def messages(*, quiet: bool = False) -> Console:
    """For lines on stderr that tell how far something is."""
    return Console(stderr=True, quiet=quiet, soft_wrap=True, markup=False, emoji=False)


def bar() -> "Progress":
    """A bar on stderr, hidden where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
