"""Export a Mixpanel project's raw events into DuckDB: complete, exact, and as fast as the quota allows."""
