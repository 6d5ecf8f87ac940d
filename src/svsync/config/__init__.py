"""What the operator wants, read once into frozen values.

`load` reads file and environment into `model.Settings`; `backends` reads one
backend, for the file and the API alike; `references` says where a credential
stands; `schema` prints the tables for editors and for people. Nothing below
this package meets a raw mapping.
"""
