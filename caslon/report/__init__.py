"""Self-contained HTML pages: sections, tables, charts."""
