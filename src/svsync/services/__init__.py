"""What svsync does: ports and the store brought together by domain decisions."""
