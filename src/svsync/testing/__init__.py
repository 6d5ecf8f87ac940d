"""For those who test svsync or a backend of their own: a backend in memory, and
the suite of tests that every backend passes (`conformance`, needs pytest)."""
