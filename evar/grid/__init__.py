"""Models × tasks × protocols: planned first, then run, each cell in a process of its own. See docs/grid.md."""
