"""One self-contained HTML page from run folders: `build(folders, out)`. It reads files only."""

from detdistill.report.build import build

__all__ = ["build"]
