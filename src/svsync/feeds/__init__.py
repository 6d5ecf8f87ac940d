"""Change feeds: where a backend itself tells what changed in it. Hints, and no more."""
