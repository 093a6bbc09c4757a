"""Where tables are printed: as wide as the terminal, and never cut when the output goes to a file."""

from rich.console import Console

FILE_WIDTH = 240


def console() -> Console:
    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, width=FILE_WIDTH)
