"""A soak: many clients read topics of every kind for a long time, and check each answer against what was produced."""
