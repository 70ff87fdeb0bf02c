"""One file per data set. ``base.py`` is the contract."""
