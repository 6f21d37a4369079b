"""Train a small detector on synthetic images in a plain PyTorch loop. Needs torch and twinloss alone."""

import torch
from torch import Tensor, nn

from twinloss import DetectionLoss, LossSpec, decode_boxes, make_anchors, predictions_from_maps

CLASSES, BINS, STRIDES, SIDE = 2, 8, (8, 16), 64


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.SiLU())


class Detector(nn.Module):
    """Returns one map (B, 4 * BINS + CLASSES, H, W) per stride: logits of left, top, right and bottom, then of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(block(3, 16), block(16, 32), block(32, 32))
        self.coarse = block(32, 64)
        self.heads = nn.ModuleList(nn.Conv2d(width, 4 * BINS + CLASSES, 1) for width in (32, 64))

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [self.heads[0](fine), self.heads[1](self.coarse(fine))]


def make_images(count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns images (count, 3, SIDE, SIDE) of dark noise with one bright box each, red for class 0 and blue for 1, and their targets."""
    images, cls = 0.3 * torch.rand(count, 3, SIDE, SIDE), torch.randint(CLASSES, (count,))
    size = torch.randint(12, 40, (count, 2))
    corner = (torch.rand(count, 2) * (SIDE - size)).long()
    for image, (x, y), (w, h), label in zip(images, corner.tolist(), size.tolist(), cls.tolist(), strict=True):
        image[2 * label, y : y + h, x : x + w] = 1.0
    boxes = torch.cat([corner + size / 2, size], dim=1) / SIDE  # centre and size in shares of the image
    return images, {"batch_idx": torch.arange(count).float(), "cls": cls.float(), "bboxes": boxes}


torch.manual_seed(0)
model, criterion = Detector(), DetectionLoss(LossSpec(num_classes=CLASSES, reg_max=BINS, strides=STRIDES))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(121):
    images, batch = make_images(16)
    loss, items = criterion(predictions_from_maps(model(images), CLASSES, BINS), batch)
    optimizer.zero_grad()
    loss.sum().backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3}:", ", ".join(f"{name} {value:.3f}" for name, value in items.items()))

images, batch = make_images(1)
preds = predictions_from_maps(model.eval()(images), CLASSES, BINS)
centres, strides = make_anchors([features.shape[-2:] for features in preds["feats"]], STRIDES)
label, anchor = divmod(int(preds["scores"][0].argmax()), len(centres))
x1, y1, x2, y2 = (decode_boxes(preds["boxes"], centres, BINS)[0, anchor] * strides[anchor]).tolist()
print(f"found: class {label}, centre and size {[round(v) for v in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)]}")
print(f"there: class {int(batch['cls'])}, centre and size {[round(v * SIDE) for v in batch['bboxes'][0].tolist()]}")
