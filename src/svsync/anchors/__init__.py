"""Places outside the database that keep checkpoints of the audit log (`ports.Anchor`)."""
