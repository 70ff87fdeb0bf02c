"""One file per model. ``base.py`` is the contract; ``networks/`` holds the architectures."""
