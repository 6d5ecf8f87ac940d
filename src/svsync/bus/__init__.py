"""Hints between processes: wake-ups and a shared rate. Never truth; any may be lost."""
