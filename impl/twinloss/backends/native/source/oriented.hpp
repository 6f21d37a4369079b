// Oriented boxes: the questions that `Upright` answers too (oriented spec sections 3 to 7).
#pragma once

#include "assignment.hpp"
#include "plain_numbers.hpp"
#include "probiou.hpp"
#include "pyramid.hpp"

namespace twinloss {

struct Oriented : PlainNumbers {
    static constexpr int NUMBERS = 5;     // of a predicted box: centre in pixels, deviations along its sides, angle
    static constexpr int ANGLES = 1;      // channels of logits beside those of the sides
    static constexpr int HELD_TERMS = 3;  // box, distribution and angle

    static constexpr float SMALLEST_SIDE = 2.0f;     // pixels; a row with a shorter side does not count
    static constexpr float PER_SIDE = 0.28867513459f;  // deviation of a side: 1 / √12

    struct Pixels {
        float x, y, width, height, angle;
    };

    // Half sides are those of the inside test, lengthened.
    struct Box : Pixels {
        float sin, cos, half_width, half_height;

        // The test of the definition, for the anchor at an offset from the centre; a row's cells that pass it are adjacent.
        bool holds(float dx, float dy) const {
            return std::fabs(dx * cos + dy * sin) <= half_width && std::fabs(dy * cos - dx * sin) <= half_height;
        }
    };

    static Pixels pixels(const KernelArguments& arguments, std::int64_t row) {
        const float *box = arguments.box + 5 * row, width = arguments.width(), height = arguments.height();
        return {box[0] * width, box[1] * height, box[2] * width, box[3] * height, box[4]};
    }

    static bool valid(const Pixels& p) {
        return p.width >= SMALLEST_SIDE && p.height >= SMALLEST_SIDE && p.x + p.y + p.width + p.height + p.angle > 0;
    }

    static Box box(const KernelArguments& arguments, const Pixels& p) {
        const SineCosine<Wide> of = sine_cosine(principal(splat<Wide>(p.angle)));
        const auto half = [&](float side) { return (side < arguments.lengthened_below ? arguments.shortest_side : side) / 2; };
        return {p, static_cast<float>(of.sin[0]), static_cast<float>(of.cos[0]), half(p.width), half(p.height)};
    }

    // Cells of the upright rectangle that encloses the box, and no fewer for rounding: `candidates` decides.
    static Window window(const KernelArguments& arguments, const Box& b, std::int64_t level) {
        const float across = std::fabs(b.cos) * b.half_width + std::fabs(b.sin) * b.half_height;
        const float down = std::fabs(b.sin) * b.half_width + std::fabs(b.cos) * b.half_height;
        const float stride = static_cast<float>(arguments.strides[level]);
        const auto cells = [&](float centre, float half, std::int64_t size, std::int32_t& first, std::int32_t& count) {
            const float wide = half + 1e-5f * (std::fabs(centre) + half);
            cells_between(centre - wide, centre + wide, stride, size, 0.0f, first, count);
        };
        Window window;
        cells(b.x, across, arguments.grid_columns[level], window.x, window.columns);
        cells(b.y, down, arguments.grid_rows[level], window.y, window.rows);
        return window;
    }

    static bool decodes(const Box&) { return true; }

    // The cells of a window in row y that are candidates.
    static Run candidates(const Box& b, const Window& w, std::int64_t y, float stride) {
        const float dy = b.y - (static_cast<float>(y) + 0.5f) * stride, slack = 1e-6f * (b.half_width + b.half_height);
        float least = -INFINITY, most = INFINITY;  // of dx, by |dx · slope + at| <= half
        const auto narrow = [&](float slope, float at, float half) {
            const float one = (half + slack - at) / slope, other = (-half - slack - at) / slope;
            least = std::fmax(least, std::fmin(one, other)), most = std::fmin(most, std::fmax(one, other));
        };
        if (b.cos != 0) narrow(b.cos, dy * b.sin, b.half_width);
        if (b.sin != 0) narrow(-b.sin, dy * b.cos, b.half_height);
        const float begin = static_cast<float>(w.x), end = static_cast<float>(w.x + w.columns - 1);
        float from = std::fmin(std::fmax(std::floor((b.x - most) / stride - 0.5f), begin), end + 1);
        float to = std::fmin(std::fmax(std::ceil((b.x - least) / stride - 0.5f), begin - 1), end);
        const auto holds = [&](float x) { return b.holds(b.x - (x + 0.5f) * stride, dy); };
        while (from <= to && !holds(from)) ++from;
        while (to > from && !holds(to)) --to;
        return {static_cast<std::int32_t>(from), to >= from ? static_cast<std::int32_t>(to - from) + 1 : 0};
    }

    static void predict(const KernelArguments&, const Lanes* read, Lanes x, Lanes y, Lanes stride, Lanes* numbers) {
        const Lanes angle = principal(read[SIDES]), along = (read[2] - read[0]) * 0.5f, across = (read[3] - read[1]) * 0.5f;
        const SineCosine<Lanes> of = sine_cosine(angle);
        numbers[0] = (x + (along * of.cos - across * of.sin)) * stride;
        numbers[1] = (y + (along * of.sin + across * of.cos)) * stride;
        numbers[2] = magnitude(read[0] + read[2]) * stride * PER_SIDE;
        numbers[3] = magnitude(read[1] + read[3]) * stride * PER_SIDE;
        numbers[4] = angle;
    }

    struct Truth {
        Lanes x, y, sin, cos, a, b, angle;

        Truth(const KernelArguments&, const Box& box)
            : x(splat(box.x)), y(splat(box.y)), sin(splat(box.sin)), cos(splat(box.cos)), a(splat(box.width * PER_SIDE)),
              b(splat(box.height * PER_SIDE)), angle(principal(splat(box.angle))) {}

        template <class T>
        Lanes overlap(const KernelArguments& arguments, const Lanes* numbers, const Candidates&) const {
            const Lanes dx = numbers[0] - x, dy = numbers[1] - y;
            const Gaussians<Lanes> pair{numbers[2], numbers[3], a, b, dx * cos + dy * sin, dy * cos - dx * sin, sine_cosine(numbers[4] - angle)};
            return 1.0f - Bhattacharyya<Lanes>(pair, arguments.probiou_eps).loss(arguments.probiou_eps);
        }
    };

    // Ground truth of held anchors in grid units, and the offset of its centre from the anchor along its sides.
    struct HeldTruth {
        Wide x, y, width, height, angle, xi, eta;

        void set(int lane, const Pixels& p, double stride, double anchor_x, double anchor_y) {
            x[lane] = p.x / stride - anchor_x;
            y[lane] = p.y / stride - anchor_y;
            width[lane] = p.width / stride;
            height[lane] = p.height / stride;
            angle[lane] = p.angle;
        }
        void finish() {
            angle = principal(angle);
            const SineCosine<Wide> of = sine_cosine(angle);
            xi = x * of.cos + y * of.sin, eta = y * of.cos - x * of.sin;
        }
        SideLanes target() const { return {{width * 0.5 - xi, height * 0.5 - eta, width * 0.5 + xi, height * 0.5 + eta}}; }
    };

    // A prediction beside its ground truth, in the frame of the latter: box loss and angle loss, and their gradient.
    struct Compared {
        const KernelArguments& arguments;
        const HeldTruth& truth;
        Wide width, height, along, across;  // of the prediction; offset of its centre from the anchor along its own sides
        Gaussians<Wide> pair;
        Bhattacharyya<Wide> distance;

        Compared(const KernelArguments& with, const SideLanes& side, const Wide* angle, const HeldTruth& beside)
            : arguments(with), truth(beside), width(side[0] + side[2]), height(side[1] + side[3]), along((side[2] - side[0]) * 0.5),
              across((side[3] - side[1]) * 0.5), pair(gaussians(sine_cosine(principal(*angle) - beside.angle))),
              distance(pair, with.probiou_eps) {}

        Wide box_loss() const { return distance.loss(arguments.probiou_eps); }

        // Full for a square, less for a longer box (oriented spec section 7).
        Wide emphasis() const {
            const Wide ratio = log_of((truth.width + 1e-9) / (truth.height + 1e-9)) * (1.0 / arguments.angle_scale);
            return exp_of_negative(-ratio * ratio);
        }
        Wide sine_of_twice() const { return 2.0 * pair.turn.sin * pair.turn.cos; }
        Wide angle_loss() const { return emphasis() * sine_of_twice() * sine_of_twice(); }

        // The gradient of box loss · to_box + angle loss · to_angle: by the distances, and by the angle into `*angle`.
        SideLanes gradient(Wide to_box, Wide to_angle, Wide* angle) const {
            const ProbIoUGradient by(pair, distance, width, height, truth.width, truth.height, arguments.probiou_eps);
            const Wide sin = pair.turn.sin, cos = pair.turn.cos, by_along = by.xi * cos + by.eta * sin, by_across = by.eta * cos - by.xi * sin;
            const Wide cosine_of_twice = cos * cos - sin * sin;
            *angle = (by.angle + along * by_across - across * by_along) * to_box + emphasis() * 4.0 * sine_of_twice() * cosine_of_twice * to_angle;
            return {{(by.width - by_along * 0.5) * to_box, (by.height - by_across * 0.5) * to_box, (by.width + by_along * 0.5) * to_box,
                     (by.height + by_across * 0.5) * to_box}};
        }

       private:
        Gaussians<Wide> gaussians(const SineCosine<Wide>& turn) const {
            const auto deviation = [&](Wide side) { return square_root(side * side * (1.0 / 12) + arguments.term_floor); };
            return {deviation(width), deviation(height), deviation(truth.width), deviation(truth.height),
                    along * turn.cos - across * turn.sin - truth.xi, along * turn.sin + across * turn.cos - truth.eta, turn};
        }
    };
};

}  // namespace twinloss
