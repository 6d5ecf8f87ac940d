"""Postgres: the only truth. SQL stands in `sql/<noun>.sql`, named and described.

Python here binds parameters and shapes rows; it holds no clause. Every statement
runs in a transaction that has named its tenant, and every transaction of a run
has locked the fence it was given.
"""
