"""Train an Ultralytics detection model with the twin as its loss.

python examples/ultralytics_drop_in.py DATA.yaml MODEL.yaml [epochs=3 imgsz=320 ...]
"""

import ast
import contextlib
import sys
from typing import Any

from ultralytics import YOLO

import twinloss

data, model, *given = sys.argv[1:]
options: dict[str, Any] = dict(option.split("=", 1) for option in given)
for name, text in options.items():
    with contextlib.suppress(ValueError, SyntaxError):  # The text is not a Python value, but a word or a path.
        options[name] = ast.literal_eval(text)

yolo = YOLO(model)
with twinloss.hook.install(yolo) as twin:
    yolo.train(data=data, **options)
print(f"the twin was called on {twin.training_calls} batches to train, on {twin.validation_calls} to validate")
