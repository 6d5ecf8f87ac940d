"""What svsync tells about itself while it works: log lines and metrics."""
