"""The service: everything that runs for ever, each task with an owner, in one process."""
