"""The least that each piece of work can cost: no retries, no history, no lease.

Each program takes its arguments as one JSON object, prints one JSON object, and
asserts that it did all of the work.
"""
