"""ScaiKey as svsync meets it: the keys that it publishes, and the signatures made by them."""
