// Upright boxes that are assigned by their keypoints (pose spec section 4, second generation): the questions that `Upright` answers too.
#pragma once

#include "log_numbers.hpp"
#include "upright.hpp"

namespace twinloss {

struct Keypoints : LogNumbers {
    static constexpr int NUMBERS = Upright::NUMBERS, ANGLES = 0;
    static constexpr double LEAST_SIDE = 2, MOST_SIDE = 12;  // √(w · h) of a box that fits a level, in its strides
    static constexpr double AREA_SHARE = 0.53, EPS = 1e-9;

    struct Pixels : Corners {
        std::int64_t row;
    };
    struct Box : Pixels {
        double area;
        std::int64_t visible;  // number of its visible keypoints
    };

    static Pixels pixels(const KernelArguments& arguments, std::int64_t row) { return {Upright::pixels(arguments, row), row}; }

    static bool valid(const Pixels& p) { return Upright::valid(p); }

    static Box box(const KernelArguments& arguments, const Pixels& p) {
        const float* size = arguments.box + 4 * p.row + 2;
        Box box{p, static_cast<double>(size[0]) * arguments.width() * (static_cast<double>(size[1]) * arguments.height()), 0};
        for (std::int64_t k = 0; k < arguments.points; ++k) box.visible += visible_keypoint(arguments, p.row, k);
        return box;
    }

    static bool fits(const KernelArguments& arguments, const Box& box, std::int64_t level) {
        const std::int64_t* strides = arguments.strides;
        const double side = std::sqrt(std::fmax(box.area, 0.0)), stride = static_cast<double>(strides[level]);
        return (side >= LEAST_SIDE * stride || strides[level] == strides[0]) &&
               (side <= MOST_SIDE * stride || strides[level] == strides[arguments.levels - 1]);
    }

    // Empty on a level that the box does not fit, unless it would so lose all its candidates.
    static Window window(const KernelArguments& arguments, const Box& box, std::int64_t level) {
        Window window = Upright::window(arguments, box, level);
        if (fits(arguments, box, level)) return window;
        for (std::int64_t other = 0; other < arguments.levels; ++other) {
            const Window w = Upright::window(arguments, box, other);
            if (fits(arguments, box, other) && w.columns > 0 && w.rows > 0) return {window.x, window.y, 0, 0};
        }
        return window;
    }

    static bool decodes(const Box& box) { return box.visible == 0; }

    static Run candidates(const Box& box, const Window& w, std::int64_t y, float stride) { return Upright::candidates(box, w, y, stride); }

    static void predict(const KernelArguments& arguments, const Lanes* side, Lanes x, Lanes y, Lanes stride, Lanes* numbers) {
        Upright::predict(arguments, side, x, y, stride, numbers);
    }

    struct Truth {
        const Box& box;
        Upright::Truth by_box;

        Truth(const KernelArguments& arguments, const Box& of) : box(of), by_box(arguments, of) {}

        // The similarity of keypoints, and of a box without a visible one the overlap of boxes.
        template <class T>
        Lanes overlap(const KernelArguments& arguments, const Lanes* numbers, const Candidates& candidates) const {
            if (box.visible) return kept(log_similarity<T>(arguments, candidates));
            const Lanes overlap = larger(by_box.overlap<T>(arguments, numbers, candidates), Lanes{});
            return choose<Lanes>(overlap == 0.0f, Lanes{}, kept(log_of(overlap) + 0.0f * overlap));
        }

       private:
        // Logarithm of the mean of e^−error over the visible keypoints, relative to the least error so far.
        template <class T>
        Lanes log_similarity(const KernelArguments& arguments, const Candidates& candidates) const {
            Lanes x{}, y{}, stride{}, least = splat(INFINITY), sum{};
            for (int lane = 0; lane < candidates.count; ++lane) {
                const std::uint32_t anchor = candidates.anchor[lane];
                stride[lane] = candidates.anchors.stride[anchor];
                x[lane] = candidates.anchors.x[anchor] * stride[lane], y[lane] = candidates.anchors.y[anchor] * stride[lane];
            }
            const double area = AREA_SHARE * box.area + EPS;
            for (std::int64_t k = 0; k < arguments.points; ++k) {
                if (!visible_keypoint(arguments, box.row, k)) continue;
                const float* point = target_keypoint(arguments, box.row, k);
                const Lanes dx = raw<T>(arguments, candidates, k, 0) * stride - (point[0] * arguments.width() - x);
                const Lanes dy = raw<T>(arguments, candidates, k, 1) * stride - (point[1] * arguments.height() - y);
                const Lanes error = (dx * dx + dy * dy) / static_cast<float>(area * arguments.doubled[k]);
                const Lanes now = smaller(least, error);
                const Lanes with = sum * exp_of_negative(now - least) + exp_of_negative(now - error);
                sum = choose<Lanes>(error == INFINITY, sum, with);  // adds nothing
                least = now;
            }
            const Lanes log_sum = log_of(sum) + 0.0f * sum - least - log_of(splat(static_cast<float>(box.visible)));
            return choose<Lanes>(sum == 0.0f, splat(-INFINITY), log_sum);
        }

        template <class T>
        Lanes raw(const KernelArguments& arguments, const Candidates& candidates, std::int64_t k, int coordinate) const {
            const T* row = static_cast<const T*>(arguments.kpts) + candidates.image * arguments.kpts_per_image +
                           (k * arguments.point_numbers + coordinate) * arguments.kpts_per_channel;
            Lanes values{};
            for (int lane = 0; lane < candidates.count; ++lane) values[lane] = widen(row[candidates.anchor[lane]]);
            return values;
        }
    };
};

}  // namespace twinloss
