pytest_plugins = ["tests.openbao"]
