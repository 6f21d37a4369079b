// Upright boxes: what the assignment and the terms ask of a kind of boxes (spec sections 3 to 6). `Oriented` answers the same questions.
#pragma once

#include "assignment.hpp"
#include "overlap.hpp"
#include "plain_numbers.hpp"
#include "pyramid.hpp"

namespace twinloss {

struct Corners {
    float x1, y1, x2, y2;
};

struct Upright : PlainNumbers {
    static constexpr int NUMBERS = 5;      // of a predicted box: its corners in pixels, and the angle of its shape
    static constexpr int ANGLES = 0;       // channels of logits beside those of the sides
    static constexpr int HELD_TERMS = 2;   // box and distribution

    using Pixels = Corners;
    using Box = Corners;

    // Pixel corners of a row of the batch.
    static Corners pixels(const KernelArguments& arguments, std::int64_t row) {
        const float* box = arguments.box + 4 * row;
        const float x = box[0] * arguments.width(), y = box[1] * arguments.height();
        const float half_width = box[2] * arguments.width() / 2, half_height = box[3] * arguments.height() / 2;
        return {x - half_width, y - half_height, x + half_width, y + half_height};
    }

    static bool valid(const Corners& c) { return c.x1 + c.y1 + c.x2 + c.y2 > 0; }

    static Corners box(const KernelArguments&, const Corners& c) { return c; }

    static Window window(const KernelArguments& arguments, const Corners& corners, std::int64_t level) {
        const auto side = [&](float low, float high, float& from, float& to) {
            const float length = high - low, centre = (low + high) / 2;
            const float half = (length < arguments.lengthened_below ? arguments.shortest_side : length) / 2;
            from = centre - half, to = centre + half;
        };
        float x1, x2, y1, y2;
        side(corners.x1, corners.x2, x1, x2);
        side(corners.y1, corners.y2, y1, y2);
        Window window;
        const float stride = static_cast<float>(arguments.strides[level]);
        cells_between(x1, x2, stride, arguments.grid_columns[level], arguments.assign_eps, window.x, window.columns);
        cells_between(y1, y2, stride, arguments.grid_rows[level], arguments.assign_eps, window.y, window.rows);
        return window;
    }

    // Whether predicted boxes are needed where the box has candidates.
    static bool decodes(const Corners&) { return true; }

    // The cells of a window in row y that are candidates: all.
    static Run candidates(const Corners&, const Window& w, std::int64_t, float) { return {w.x, w.columns}; }

    static void predict(const KernelArguments& arguments, const Lanes* side, Lanes x, Lanes y, Lanes stride, Lanes* numbers) {
        const CornersOf<Lanes> c{(x - side[0]) * stride, (y - side[1]) * stride, (x + side[2]) * stride, (y + side[3]) * stride};
        numbers[0] = c.x1, numbers[1] = c.y1, numbers[2] = c.x2, numbers[3] = c.y2;
        numbers[4] = Shape<Lanes>(c, arguments.ciou_eps).angle;
    }

    // A ground-truth box, beside which predicted ones are put.
    struct Truth {
        CornersOf<Lanes> corners;
        Shape<Lanes> shape;

        Truth(const KernelArguments& arguments, const Corners& c)
            : corners{splat(c.x1), splat(c.y1), splat(c.x2), splat(c.y2)}, shape(corners, arguments.ciou_eps) {}

        template <class T>
        Lanes overlap(const KernelArguments& arguments, const Lanes* numbers, const Candidates&) const {
            const CornersOf<Lanes> p{numbers[0], numbers[1], numbers[2], numbers[3]};
            const Shape<Lanes> predicted(p.x2 - p.x1, p.y2 - p.y1 + arguments.ciou_eps, numbers[4]);
            return CompleteIoU<Lanes>(corners, shape, p, predicted, arguments.ciou_eps).value;
        }
    };

    // Ground truth of held anchors in grid units, relative to the anchor's centre, so that the differences of close corners round little.
    struct HeldTruth {
        CornersOf<Wide> corners;

        void set(int lane, const Corners& c, double stride, double x, double y) {
            corners.x1[lane] = c.x1 / stride - x;
            corners.y1[lane] = c.y1 / stride - y;
            corners.x2[lane] = c.x2 / stride - x;
            corners.y2[lane] = c.y2 / stride - y;
        }
        void finish() {}
        SideLanes target() const { return {{-corners.x1, -corners.y1, corners.x2, corners.y2}}; }
    };

    // A prediction beside its ground truth: box loss, and its gradient by the distances.
    struct Compared {
        const HeldTruth& truth;
        CornersOf<Wide> predicted;
        Shape<Wide> shape;
        CompleteIoU<Wide> iou;

        Compared(const KernelArguments& arguments, const SideLanes& distance, const Wide*, const HeldTruth& with)
            : truth(with), predicted{-distance[0], -distance[1], distance[2], distance[3]}, shape(predicted, arguments.ciou_eps),
              iou(predicted, shape, with.corners, Shape<Wide>(with.corners, arguments.ciou_eps), arguments.ciou_eps) {}

        Wide box_loss() const { return 1.0 - iou.value; }

        // The gradient of box loss · to_box by the distances.
        SideLanes gradient(Wide to_box, Wide, Wide*) const {
            const CornersOf<Wide> by_corner = ciou_gradient(predicted, shape, truth.corners, iou);
            return {{by_corner.x1 * to_box, by_corner.y1 * to_box, -by_corner.x2 * to_box, -by_corner.y2 * to_box}};
        }
    };
};

}  // namespace twinloss
