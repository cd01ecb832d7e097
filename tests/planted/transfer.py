"""Bugs of import and export."""

from typing import Final

from tests.planted.bug import Bug

ROOM: Final = "client/task_manager_client/transfer"
COMMAND_TESTS: Final = "tests/client/transfer/test_files_command.py"
ROUND_TRIP: Final = ("tests/client/transfer/test_round_trip.py", "-k", "lived_in")

TRANSFER_BUGS: Final = (
    Bug(
        "an import that continues creates its tasks again",
        f"{ROOM}/importer.py",
        "for task in batch], idempotency_key=key)",
        "for task in batch])",
        (COMMAND_TESTS, "-k", "killed"),
    ),
    Bug("an import takes tasks out of the bin", f"{ROOM}/importer.py", "        self._move_to_bin(planned)\n", "", ROUND_TRIP),
    Bug(
        "an export leaves out the bin", f"{ROOM}/exporter.py", "(filter=filter_text, show_deleted=everything)\n", "(filter=filter_text)\n", ROUND_TRIP
    ),
    Bug("an import changes the order of a list", f"{ROOM}/ndjson.py", "        tasks.sort(key=lambda entry: entry[0])\n", "", ROUND_TRIP),
    Bug(
        "an import loses the end of a long title",
        f"{ROOM}/bounds.py",
        'short, f"{title}\\n\\n{text}".rstrip()',
        "short, text",
        ("tests/client/transfer/test_limits.py", "-k", "too_long"),
    ),
)
