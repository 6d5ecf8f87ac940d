"""svsync: the federation sync daemon of ScaiVault.

It pulls existing secret stores into one sealed store of its own, again and
again, and loses nobody's write on the way. `docs/architecture.md` is the tour.
"""

__version__ = "0.1.0"
