"""The adapter for Nova: the only place that imports nova. Written against nova 34 (2026.2)."""
