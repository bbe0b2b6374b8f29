"""Detects objects with an exported file: python detect_onnx.py model.onnx picture.jpg ..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
card = json.loads(session.get_modelmeta().custom_metadata_map["detdistill"])
for path in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scale = 1.0
    if card["resize"]:
        shorter, longer = card["resize"]
        scale = min(shorter / min(picture.size), longer / max(picture.size))
        picture = picture.resize([max(1, int(side * scale + 0.5)) for side in picture.size])
    pixels = np.asarray(picture).transpose(2, 0, 1)
    sizes = np.array([pixels.shape[1:]])
    multiple = card["pad"]["multiple"]
    canvas = np.maximum(pixels.shape[1:], card.get("letterbox") or 1)
    beyond = -(-canvas // multiple) * multiple - pixels.shape[1:]
    images = np.pad(pixels, ((0, 0), (0, beyond[0]), (0, beyond[1])))[None]
    boxes, scores, labels, counts = session.run(None, {"images": images, "sizes": sizes})
    for i in range(counts[0]):
        name = card["classes"][labels[0, i]]
        print(path, name, f"{scores[0, i]:.2f}", *(boxes[0, i] / scale).round(1))
