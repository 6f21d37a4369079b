"""CIoU of two boxes and its derivative, in registers (spec sections 6 and 8; Zheng et al. 2019, arXiv 1911.08287).

The operations and their order are those of :func:`twinloss.geometry.upright.ciou`, so that both backends decide alike. A box is a tuple of
its corners (x1, y1, x2, y2).
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import arctangent, greatest, least, reciprocal


@triton.jit
def ciou(a: tl.tuple, b: tl.tuple, eps: tl.tensor) -> tl.tensor:
    """CIoU of boxes a and b in the same units."""
    _, _, _, _, _, areas, angles = _measured(a, b, eps)
    _, iou, _, share = areas
    _, _, aspect, trade_off = angles
    return iou - (share + trade_off * aspect)


@triton.jit
def _measured(a: tl.tuple, b: tl.tuple, eps: tl.tensor) -> tl.tuple:
    """Quantities that the CIoU and its derivative share.

    Returns (width, height) or (x, y) of box a, of the intersection before and after it is clamped at 0, of the hull (the least box around
    both) and of twice the offset of the centres; then (union, IoU, c², ρ²/c²) and (a's width / height, angle from a to b, v, α).
    """
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    aw = ax2 - ax1
    ah = ay2 - ay1 + eps
    bw = bx2 - bx1
    bh = by2 - by1 + eps
    raw_w = least(ax2, bx2) - greatest(ax1, bx1)
    raw_h = least(ay2, by2) - greatest(ay1, by1)
    width = tl.where(raw_w <= 0, 0.0, raw_w)
    height = tl.where(raw_h <= 0, 0.0, raw_h)
    intersection = width * height
    union = aw * ah + bw * bh - intersection + eps
    iou = tl.div_rn(intersection, union)
    hull_w = greatest(ax2, bx2) - least(ax1, bx1)
    hull_h = greatest(ay2, by2) - least(ay1, by1)
    diagonal = hull_w * hull_w + hull_h * hull_h + eps
    apart_x = bx1 + bx2 - ax1 - ax2
    apart_y = by1 + by2 - ay1 - ay2
    share = tl.div_rn((apart_x * apart_x + apart_y * apart_y) * 0.25, diagonal)
    ratio = tl.div_rn(aw, ah)
    turn = arctangent(tl.div_rn(bw, bh)) - arctangent(ratio)
    aspect = 0.4052847345693511 * (turn * turn)  # 4 / π²
    trade_off = tl.div_rn(aspect, 1 - iou + aspect + eps)
    areas = (union, iou, diagonal, share)
    angles = (ratio, turn, aspect, trade_off)
    return (aw, ah), (raw_w, raw_h), (width, height), (hull_w, hull_h), (apart_x, apart_y), areas, angles


@triton.jit
def ciou_gradient(a: tl.tuple, b: tl.tuple, eps: tl.tensor) -> tl.tuple:
    """Derivative of the CIoU by box a's corners (x1, y1, x2, y2).

    The trade-off α is a constant. Where coordinates of a and b are equal, each has half of the derivative of their minimum or maximum.
    """
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    sides, raw, inner, hull, apart, areas, angles = _measured(a, b, eps)
    aw, ah = sides
    raw_w, raw_h = raw
    width, height = inner
    hull_w, hull_h = hull
    apart_x, apart_y = apart
    union, iou, diagonal, share = areas
    ratio, turn, _, trade_off = angles
    # α times the derivative of v by box a's width; the derivative by its height is −ratio times as large.
    bend = trade_off * turn * tl.div_rn(-0.8105694691387022 * reciprocal(1 + ratio * ratio), ah)

    # The clamp at 0 has derivative 0 where its argument is 0, as torch's relu has.
    by_width = tl.where(raw_w > 0, height, 0.0)
    by_height = tl.where(raw_h > 0, width, 0.0)
    x1 = _corner(-by_width * _above(ax1, bx1), -ah, -2 * hull_w * _above(bx1, ax1), apart_x, iou, union, share, diagonal)
    y1 = _corner(-by_height * _above(ay1, by1), -aw, -2 * hull_h * _above(by1, ay1), apart_y, iou, union, share, diagonal)
    x2 = _corner(by_width * _above(bx2, ax2), ah, 2 * hull_w * _above(ax2, bx2), apart_x, iou, union, share, diagonal)
    y2 = _corner(by_height * _above(by2, ay2), aw, 2 * hull_h * _above(ay2, by2), apart_y, iou, union, share, diagonal)
    return x1 + bend, y1 - bend * ratio, x2 - bend, y2 + bend * ratio


@triton.jit
def _corner(
    inner: tl.tensor,
    area: tl.tensor,
    outer: tl.tensor,
    apart: tl.tensor,
    iou: tl.tensor,
    union: tl.tensor,
    share: tl.tensor,
    diagonal: tl.tensor,
) -> tl.tensor:
    """Derivative of IoU − ρ²/c² by one coordinate, from those of the intersection, box a's area and c² by it; ``share`` is ρ²/c²."""
    return tl.div_rn(inner - iou * (area - inner), union) - tl.div_rn(-0.5 * apart - share * outer, diagonal)


@triton.jit
def _above(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """1 where a > b, ½ where they are equal, else 0."""
    return tl.where(a > b, 1.0, tl.where(a == b, 0.5, 0.0))
