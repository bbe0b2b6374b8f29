"""MMDetection's checkpoints, of 2.x and 3.x, read without MMDetection."""

from detdistill.interop.mmdet.convert import Imported, load

__all__ = ["Imported", "load"]
