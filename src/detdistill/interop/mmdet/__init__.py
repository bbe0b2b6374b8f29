"""MMDetection's checkpoints, of 2.x and 3.x, read without MMDetection."""

from detdistill.interop.mmdet.convert import load

__all__ = ["load"]
