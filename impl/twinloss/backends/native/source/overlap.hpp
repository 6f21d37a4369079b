// Boxes predicted and true, and the CIoU of pairs of them (spec sections 4 and 6).
#pragma once

#include "lanes.hpp"

namespace twinloss {

template <class V>
struct CornersOf {
    V x1, y1, x2, y2;
};

// Width, height, and the angle whose tangent is their ratio; the epsilon belongs to the height.
template <class V>
struct Shape {
    V width, height, angle;

    Shape(const CornersOf<V>& c, float eps) : width(c.x2 - c.x1), height(c.y2 - c.y1 + eps), angle(angle_of(width / height)) {}
    Shape(V w, V h, V a) : width(w), height(h), angle(a) {}
};

// IoU − (ρ²/c² + α v), with what its derivative needs.
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

}  // namespace twinloss
