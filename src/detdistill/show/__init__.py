"""Pictures: detections drawn on images, learning curves."""
