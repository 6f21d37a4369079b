// The terms that the held anchors alone have a share in, forward and backward (spec sections 6 to 8).
#pragma once

#include "held_group.hpp"
#include "threads.hpp"

namespace twinloss {

// The two bins around a target distance, clamped to [0, R − 1 − margin], and the upper one's share (spec section 7).
struct TwoBins {
    Bits<Wide> lower;
    Wide upper_share;

    TwoBins(Wide target, const Problem& problem) {
        const Wide clamped = smaller(larger(target, Wide{}), splat<Wide>(problem.longest));
        lower = __builtin_convertvector(clamped, Bits<Wide>);
        upper_share = clamped - __builtin_convertvector(lower, Wide);
        const Bits<Wide> most = Bits<Wide>{} + (problem.bins - 2);  // where the target is NaN, any bin that exists will do
        lower = (lower & (lower > 0)), lower = (lower & (lower < most)) | (most & (lower >= most));
    }
    // Takes each bin's share of `whole` from the value of the bin.
    void take_from(Wide* values, Wide whole) const {
        for (int lane = 0; lane < LANES; ++lane) {
            values[lower[lane]][lane] -= whole[lane] * (1.0 - upper_share[lane]);
            values[lower[lane] + 1][lane] -= whole[lane] * upper_share[lane];
        }
    }
};

// Cross-entropy of one side's distribution with the two bins.
inline Wide cross_entropy(const Wide* logits, const Distribution<Wide>& d, const TwoBins& bins) {
    Wide at_lower, at_upper;
    for (int lane = 0; lane < LANES; ++lane) {
        at_lower[lane] = logits[bins.lower[lane]][lane];
        at_upper[lane] = logits[bins.lower[lane] + 1][lane];
    }
    const Wide mean = (at_lower - d.largest) * (1.0 - bins.upper_share) + (at_upper - d.largest) * bins.upper_share;
    return log_of(d.total) + 0.0 * d.total - mean;
}

// Pixels of a side's distance per pixel of the image: what turns grid units into shares of the image (spec section 7, R = 1).
inline Wide share_of_image(const Problem& problem, const HeldGroup& group, int side) {
    return group.stride / (side % 2 ? problem.height() : problem.width());
}

struct Sums {
    double box = 0, third = 0;

    void add(Wide of_box, Wide of_third, int count) {
        for (int lane = 0; lane < count; ++lane) box += of_box[lane], third += of_third[lane];
    }
};

inline Sums held_terms(const Problem& problem, HeldGroup& group) {
    SideLanes distance, target = group.target();
    Wide third{};
    for (int side = 0; side < SIDES; ++side) {
        const Wide* logits = group.bins_of(side, problem.bins);
        if (problem.bins == 1) {
            const Wide scale = share_of_image(problem, group, side);
            distance[side] = logits[0];
            third += magnitude(distance[side] * scale - target[side] * scale);
        } else {
            const Distribution<Wide> d = group.distribution(side, problem.bins);
            distance[side] = d.expected();
            third += cross_entropy(logits, d, TwoBins(target[side], problem));
        }
    }
    if (problem.bins == 1 && !problem.distance_term) third = Wide{};
    const CornersOf<Wide> predicted = corners_at(distance);
    const float eps = problem.ciou_eps;
    const CompleteIoU<Wide> iou(predicted, Shape<Wide>(predicted, eps), group.truth, Shape<Wide>(group.truth, eps), eps);
    Sums sums;
    sums.add((1.0 - iou.value) * group.weight, third * 0.25 * group.weight, group.count);
    return sums;
}

// 1 where a < b, 1/2 where they are equal, 0 elsewhere: of a minimum (a of the two), the share that a's gradient has.
inline Wide first_share(Wide a, Wide b) { return choose<Wide>(a < b, splat<Wide>(1.0), choose<Wide>(a == b, splat<Wide>(0.5), Wide{})); }

// Gradient of the CIoU by the first box's corners; α is a constant (spec section 6).
inline CornersOf<Wide> ciou_gradient(const CornersOf<Wide>& a, const Shape<Wide>& shape, const CornersOf<Wide>& b, const CompleteIoU<Wide>& c) {
    constexpr double EIGHT_OVER_PI_SQUARED = 0.81056946913870217;
    const Wide iou = c.intersection / c.union_area, away = c.distance / c.diagonal;
    const Wide dx = b.x1 + b.x2 - a.x1 - a.x2, dy = b.y1 + b.y2 - a.y1 - a.y2;
    const Wide turned = c.trade_off * EIGHT_OVER_PI_SQUARED * c.turn / (shape.width * shape.width + shape.height * shape.height);
    // Along one axis: how far the corner moves the intersection's side, the hull's, and (sign) the box's own.
    const auto along = [&](Wide inner, Wide hull, float sign, Wide inner_side, Wide across, Wide other, Wide hull_side, Wide offset,
                           Wide turn) {
        const Wide moved = choose<Wide>(inner_side >= 0.0, inner * larger(across, Wide{}), Wide{});
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

// Replaces the group's logits by the gradient by them.
inline void held_gradient(const Problem& problem, HeldGroup& group, float box_factor, float third_factor) {
    SideLanes distance, to_distance, target = group.target();
    Distribution<Wide> found[SIDES];
    for (int side = 0; side < SIDES; ++side) {
        if (problem.bins > 1) found[side] = group.distribution_in_place(side, problem.bins);
        distance[side] = problem.bins > 1 ? found[side].expected() : group.bins_of(side, problem.bins)[0];
    }
    const CornersOf<Wide> predicted = corners_at(distance);
    const Shape<Wide> shape(predicted, problem.ciou_eps);
    const CompleteIoU<Wide> iou(predicted, shape, group.truth, Shape<Wide>(group.truth, problem.ciou_eps), problem.ciou_eps);
    const CornersOf<Wide> by_corner = ciou_gradient(predicted, shape, group.truth, iou);
    const Wide share = -box_factor * group.weight;
    to_distance = {{-by_corner.x1 * share, -by_corner.y1 * share, by_corner.x2 * share, by_corner.y2 * share}};
    const Wide to_third = third_factor * 0.25 * group.weight;
    for (int side = 0; side < SIDES; ++side) {
        Wide* logits = group.logits + side * problem.bins;
        if (problem.bins == 1) {
            const Wide scale = share_of_image(problem, group, side), off = logits[0] * scale - target[side] * scale;
            const Wide sign = choose<Wide>(off > 0.0, splat<Wide>(1.0), choose<Wide>(off < 0.0, splat<Wide>(-1.0), off));
            logits[0] = to_distance[side] + (problem.distance_term ? to_third * sign * scale : Wide{});
            continue;
        }
        const Distribution<Wide>& d = found[side];
        const Wide scale = 1.0 / d.total;
        for (std::int64_t bin = 0; bin < problem.bins; ++bin)
            logits[bin] = logits[bin] * scale * (d.beyond_expected(bin) * to_distance[side] + to_third);
        TwoBins(target[side], problem).take_from(logits, to_third);
    }
}

// Group after group of the held anchors; `visit(group, g)` is called by several threads, each with room of its own.
template <class T, class Visit>
void for_each_group(const Problem& problem, const Anchors& anchors, const Held& held, std::int64_t count, Wide* rooms, Visit visit) {
    const std::int64_t groups = (count + LANES - 1) / LANES;
    const float sum = sum_of_weights(held, count);
#pragma omp parallel num_threads(problem.threads)
    {
        HeldGroup group;
        group.logits = rooms + thread_number() * SIDES * problem.bins;
#pragma omp for schedule(static)
        for (std::int64_t g = 0; g < groups; ++g) {
            group.gather<T>(problem, anchors, held, g * LANES, count, sum);
            visit(group, g);
        }
    }
}

// Gradient (B, 4R, A), contiguous: zero but at the held anchors.
template <class T>
void boxes_gradient(const Problem& problem, const Anchors& anchors, const Held& held, std::int64_t count, Wide* rooms, float box_factor,
                    float third_factor, T* gradient) {
    const std::int64_t channels = SIDES * problem.bins;
#pragma omp parallel for schedule(static) num_threads(problem.threads)
    for (std::int64_t row = 0; row < problem.images * channels; ++row)
        std::memset(static_cast<void*>(gradient + row * problem.anchors), 0, static_cast<std::size_t>(problem.anchors) * sizeof(T));
    for_each_group<T>(problem, anchors, held, count, rooms, [&](HeldGroup& group, std::int64_t) {
        held_gradient(problem, group, box_factor, third_factor);
        for (std::int64_t channel = 0; channel < channels; ++channel)
            for (int lane = 0; lane < group.count; ++lane)
                gradient[(group.image[lane] * channels + channel) * problem.anchors + group.anchor[lane]] =
                    narrow<T>(static_cast<float>(group.logits[channel][lane]));
    });
}

}  // namespace twinloss
