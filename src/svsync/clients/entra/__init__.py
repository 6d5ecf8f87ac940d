"""Microsoft Entra ID as who vouches for Event Grid: the keys of its directories."""
