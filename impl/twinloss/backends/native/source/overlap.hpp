// Boxes as corners, the CIoU of a pair of boxes, and its gradient (spec sections 6 and 8).
#pragma once

#include "functions.hpp"

namespace twinloss {

template <class V>
struct CornersOf {
    V x1, y1, x2, y2;
};

// Width, height + eps, and the arctangent of their ratio.
template <class V>
struct Shape {
    V width, height, angle;

    Shape(const CornersOf<V>& c, float eps) : width(c.x2 - c.x1), height(c.y2 - c.y1 + eps), angle(angle_of(width / height)) {}
    Shape(V w, V h, V a) : width(w), height(h), angle(a) {}
};

// CIoU = IoU − (ρ²/c² + α v) in `value`, and the intermediate results that its gradient needs.
template <class V>
struct CompleteIoU {
    V inner_width, inner_height;  // of the intersection, before it is clamped at 0
    V intersection, union_area, hull_width, hull_height, diagonal, distance, turn, trade_off, value;

    CompleteIoU(const CornersOf<V>& a, const Shape<V>& shape_a, const CornersOf<V>& b, const Shape<V>& shape_b, float eps) {
        constexpr Number<V> FOUR_OVER_PI_SQUARED = 0.40528473456935109;
        inner_width = smaller(a.x2, b.x2) - larger(a.x1, b.x1);
        inner_height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
        intersection = larger(inner_width, V{}) * larger(inner_height, V{});
        union_area = shape_a.width * shape_a.height + shape_b.width * shape_b.height - intersection + eps;
        const V iou = intersection / union_area;
        hull_width = larger(a.x2, b.x2) - smaller(a.x1, b.x1);
        hull_height = larger(a.y2, b.y2) - smaller(a.y1, b.y1);
        diagonal = hull_width * hull_width + hull_height * hull_height + eps;
        const V dx = b.x1 + b.x2 - a.x1 - a.x2, dy = b.y1 + b.y2 - a.y1 - a.y2;
        distance = (dx * dx + dy * dy) * Number<V>(0.25);
        turn = shape_b.angle - shape_a.angle;
        const V aspect = FOUR_OVER_PI_SQUARED * (turn * turn);
        trade_off = aspect / (1 - iou + aspect + eps);
        value = iou - (distance / diagonal + trade_off * aspect);
    }
};

// Derivative of min(a, b) by a: 1 for a < b, 1/2 for a = b, else 0.
inline Wide first_share(Wide a, Wide b) { return choose<Wide>(a < b, splat<Wide>(1.0), choose<Wide>(a == b, splat<Wide>(0.5), Wide{})); }

// Gradient of the CIoU by the corners of box a; α is a constant (spec section 6).
inline CornersOf<Wide> ciou_gradient(const CornersOf<Wide>& a, const Shape<Wide>& shape, const CornersOf<Wide>& b, const CompleteIoU<Wide>& c) {
    constexpr double EIGHT_OVER_PI_SQUARED = 0.81056946913870217;
    const Wide iou = c.intersection / c.union_area, away = c.distance / c.diagonal;
    const Wide dx = b.x1 + b.x2 - a.x1 - a.x2, dy = b.y1 + b.y2 - a.y1 - a.y2;
    const Wide turned = c.trade_off * EIGHT_OVER_PI_SQUARED * c.turn / (shape.width * shape.width + shape.height * shape.height);
    // By one coordinate: `inner`, `hull` and `sign` are the derivatives of the sides of intersection, hull and box a by it.
    const auto along = [&](Wide inner, Wide hull, float sign, Wide inner_side, Wide across, Wide other, Wide hull_side, Wide offset,
                           Wide turn) {
        const Wide moved = choose<Wide>(inner_side > 0.0, inner * larger(across, Wide{}), Wide{});
        const Wide of_iou = (moved * (1.0 + iou) - iou * other * sign) / c.union_area;
        const Wide of_distance = (offset * -0.5 - away * (2.0 * hull_side * hull)) / c.diagonal;
        return of_iou - of_distance + turn * sign;
    };
    const Wide iw = c.inner_width, ih = c.inner_height, w = shape.width, h = shape.height;
    return {
        along(-first_share(b.x1, a.x1), -first_share(a.x1, b.x1), -1.0, iw, ih, h, c.hull_width, dx, turned * h),
        along(-first_share(b.y1, a.y1), -first_share(a.y1, b.y1), -1.0, ih, iw, w, c.hull_height, dy, -turned * w),
        along(first_share(a.x2, b.x2), first_share(b.x2, a.x2), 1.0, iw, ih, h, c.hull_width, dx, turned * h),
        along(first_share(a.y2, b.y2), first_share(b.y2, a.y2), 1.0, ih, iw, w, c.hull_height, dy, -turned * w),
    };
}

}  // namespace twinloss
