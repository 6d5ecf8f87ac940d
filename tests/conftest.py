"""Fixtures that every folder of tests may use; each plugin says what it gives."""

pytest_plugins = [
    "tests.memory",
    "tests.openbao",
    "tests.aws",
    "tests.azure",
    "tests.gcp",
    "tests.key_services",
    "tests.postgres",
    "tests.canary",
    "tests.house",
    "tests.shredded",
    "tests.aws_house",
    "tests.api",
    "tests.valkey",
    "tests.example",
]
