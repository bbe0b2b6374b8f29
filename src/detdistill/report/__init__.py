"""One self-contained HTML page from run folders; it reads files only."""
