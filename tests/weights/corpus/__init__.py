"""Weight files for tests: valid ones by the frameworks' own writers, and hostile ones by hand."""
