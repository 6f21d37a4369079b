// The terms that the held anchors alone have a share in, forward and backward (spec sections 6 to 8).
#pragma once

#include "held_lanes.hpp"
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
        for (int lane = 0; lane < WIDE; ++lane) {
            values[lower[lane]][lane] -= whole[lane] * (1.0 - upper_share[lane]);
            values[lower[lane] + 1][lane] -= whole[lane] * upper_share[lane];
        }
    }
};

// Cross-entropy of one side's distribution with the two bins.
inline Wide cross_entropy(const Wide* logits, const Distribution<Wide>& d, const TwoBins& bins) {
    Wide at_lower, at_upper;
    for (int lane = 0; lane < WIDE; ++lane) {
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
    void add(const Sums& other) { box += other.box, third += other.third; }
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

// What the terms need beside their inputs.
struct TermsScratch {
    Anchors anchors;
    Stretch* stretches;
    Sums* sums;        // one per stretch
    double* row_sums;  // (B, C)
    float* blocks;     // one per thread
    Wide* groups;      // one per thread

    TermsScratch(const Problem& problem, std::int64_t held, Scratch& scratch)
        : anchors(problem, scratch), stretches(scratch.take<Stretch>(Stretch::most(problem, held))),
          sums(scratch.take<Sums>(Stretch::most(problem, held))), row_sums(scratch.take<double>(problem.images * problem.classes)),
          blocks(scratch.take<float>(problem.threads * HeldBlock::room(problem))),
          groups(scratch.take<Wide>(problem.threads * SIDES * problem.bins)) {}
};

// Stretch after stretch, by several threads: `of_group` is called for a few held anchors at a time, `done` at the end of a stretch.
template <class T, class OfGroup, class Done>
std::int64_t for_each_stretch(const Problem& problem, const Held& held, std::int64_t count, TermsScratch& room, OfGroup of_group, Done done) {
    room.anchors.fill(problem);
    const std::int64_t stretches = Stretch::cut(problem, held, count, room.stretches);
    const float sum = sum_of_weights(held, count);
#pragma omp parallel num_threads(problem.threads)
    {
        HeldBlock block(problem, room.blocks + thread_number() * HeldBlock::room(problem));
        HeldGroup group;
        group.logits = room.groups + thread_number() * SIDES * problem.bins;
#pragma omp for schedule(dynamic)
        for (std::int64_t n = 0; n < stretches; ++n) {
            const Stretch& stretch = room.stretches[n];
            if (stretch.count) block.read<T>(problem, held, stretch);
            for (std::int64_t start = 0; start < stretch.count; start += WIDE) {
                group.take(problem, room.anchors, held, stretch, start, sum, block);
                of_group(n, group, block, start);
            }
            done(stretch, block);
        }
    }
    return stretches;
}

// Sums of the box term and of the third.
template <class T>
Sums box_and_third_terms(const Problem& problem, const Held& held, std::int64_t count, TermsScratch& room) {
    std::fill_n(room.sums, Stretch::most(problem, count), Sums());
    const auto add = [&](std::int64_t n, HeldGroup& group, HeldBlock&, std::int64_t) { room.sums[n].add(held_terms(problem, group)); };
    const std::int64_t stretches = for_each_stretch<T>(problem, held, count, room, add, [](const Stretch&, HeldBlock&) {});
    Sums sums;
    for (std::int64_t n = 0; n < stretches; ++n) sums.add(room.sums[n]);
    return sums;
}

// Gradient (B, 4R, A), contiguous: zero but at the held anchors.
template <class T>
void boxes_gradient(const Problem& problem, const Held& held, std::int64_t count, TermsScratch& room, float box_factor, float third_factor,
                    T* gradient) {
    const auto replace = [&](std::int64_t, HeldGroup& group, HeldBlock& block, std::int64_t start) {
        held_gradient(problem, group, box_factor, third_factor);
        for (std::int64_t channel = 0; channel < SIDES * problem.bins; ++channel)
            block.set(channel, start, __builtin_convertvector(group.logits[channel], Half));
    };
    for_each_stretch<T>(problem, held, count, room, replace,
                        [&](const Stretch& stretch, HeldBlock& block) { block.write(problem, held, stretch, gradient); });
}

}  // namespace twinloss
