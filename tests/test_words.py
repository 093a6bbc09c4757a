"""Words of the field in code and settings: those that nobody would search for may not come back."""

import io
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tasks" / "nightshift"
GONE = {
    *("Feed", "open_feed", "Course", "multiply_rate", "loss_of", "pieces_for", "may_improve", "find_rate"),
    *("Ranks", "ALONE", "GoOn", "BRIEF", "Mirrored", "RoundedWeight", "accumulation", "mirror", "first_side"),
    *("backbone_rate", "Line", "FullError", "StoppingError", "Follower", "Meters", "passed_over", "Pace"),
    *("Standings", "Unmade", "Forecast", "salt", "instead_of", "hand_moves", "late_hours", "most_listed"),
    *("Decoders", "Unreadable", "harmless", "Doomed", "Cleaning", "Upkept", "Reach", "worded"),
    *("open_night", "close_night", "Journal"),
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_private_words_do_not_come_back(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = {
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.NAME
    }
    assert names & GONE == set()
