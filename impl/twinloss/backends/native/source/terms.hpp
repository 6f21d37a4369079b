// The box term and the distribution term (the distance term for R = 1; `dfl` in both cases), forward and backward (spec sections 6 to 8).
#pragma once

#include "held_lanes.hpp"
#include "threads.hpp"

namespace twinloss {

// The two bins around a target distance, clamped to [0, R − 1 − margin], and the upper one's share (spec section 7).
struct TwoBins {
    Bits<Wide> lower;
    Wide upper_share;

    TwoBins(Wide target, const KernelArguments& arguments) {
        const Wide clamped = smaller(larger(target, Wide{}), splat<Wide>(arguments.longest));
        lower = __builtin_convertvector(clamped, Bits<Wide>);
        upper_share = clamped - __builtin_convertvector(lower, Wide);
        const Bits<Wide> most = Bits<Wide>{} + (arguments.bins - 2);  // for a NaN target, any existing bin serves
        lower = (lower & (lower > 0)), lower = (lower & (lower < most)) | (most & (lower >= most));
    }
    // Subtracts from the values of the two bins their shares of `whole`.
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

// Factor from grid units to shares of the image's width or height (spec section 7, R = 1).
inline Wide share_of_image(const KernelArguments& arguments, Wide stride, int side) {
    return stride / (side % 2 ? arguments.height() : arguments.width());
}

// Sums over held anchors: of the box term, the distribution term, and the geometry's own.
template <class Geometry>
struct Sums {
    double of[Geometry::HELD_TERMS] = {};

    void add(const Wide* losses, int count) {
        for (int lane = 0; lane < count; ++lane)
            for (int term = 0; term < Geometry::HELD_TERMS; ++term) of[term] += losses[term][lane];
    }
    void add(const Sums& other) {
        for (int term = 0; term < Geometry::HELD_TERMS; ++term) of[term] += other.of[term];
    }
};

// Factors of the box term, the distribution term and the angle term.
struct Factors {
    float box, dfl, angle;
};

// Adds one held anchor after the other: the sum does not depend on how many fill a register.
template <class Geometry>
void add_held_terms(const KernelArguments& arguments, HeldLanes<Geometry>& lanes, Sums<Geometry>& sums) {
    SideLanes distance, target = lanes.truth.target();
    Wide dfl{};
    for (int side = 0; side < SIDES; ++side) {
        const Wide* logits = lanes.bins_of(side, arguments.bins);
        if (arguments.bins == 1) {
            const Wide scale = share_of_image(arguments, lanes.stride, side);
            distance[side] = logits[0];
            dfl += magnitude(distance[side] * scale - target[side] * scale);
        } else {
            const Distribution<Wide> d = lanes.distribution(side, arguments.bins);
            distance[side] = d.expected();
            dfl += cross_entropy(logits, d, TwoBins(target[side], arguments));
        }
    }
    if (arguments.bins == 1 && !arguments.distance_term) dfl = Wide{};
    const typename Geometry::Compared compared(arguments, distance, lanes.angle(arguments.bins), lanes.truth);
    Wide losses[Geometry::HELD_TERMS] = {compared.box_loss() * lanes.weight, dfl * 0.25 * lanes.weight};
    if constexpr (Geometry::ANGLES > 0) losses[2] = compared.angle_loss() * lanes.weight;
    sums.add(losses, lanes.count);
}

// Replaces the logits in the lanes by their gradient.
template <class Geometry>
void held_gradient(const KernelArguments& arguments, HeldLanes<Geometry>& lanes, const Factors& factors) {
    SideLanes distance, target = lanes.truth.target();
    Distribution<Wide> found[SIDES];
    for (int side = 0; side < SIDES; ++side) {
        if (arguments.bins > 1) found[side] = lanes.distribution_in_place(side, arguments.bins);
        distance[side] = arguments.bins > 1 ? found[side].expected() : lanes.bins_of(side, arguments.bins)[0];
    }
    const typename Geometry::Compared compared(arguments, distance, lanes.angle(arguments.bins), lanes.truth);
    const SideLanes to_distance = compared.gradient(factors.box * lanes.weight, factors.angle * lanes.weight, lanes.angle(arguments.bins));
    const Wide to_dfl = factors.dfl * 0.25 * lanes.weight;
    for (int side = 0; side < SIDES; ++side) {
        Wide* logits = lanes.logits + side * arguments.bins;
        if (arguments.bins == 1) {
            const Wide scale = share_of_image(arguments, lanes.stride, side), off = logits[0] * scale - target[side] * scale;
            const Wide sign = choose<Wide>(off > 0.0, splat<Wide>(1.0), choose<Wide>(off < 0.0, splat<Wide>(-1.0), off));
            logits[0] = to_distance[side] + (arguments.distance_term ? to_dfl * sign * scale : Wide{});
            continue;
        }
        const Distribution<Wide>& d = found[side];
        const Wide scale = 1.0 / d.total;
        for (std::int64_t bin = 0; bin < arguments.bins; ++bin)
            logits[bin] = logits[bin] * scale * (d.beyond_expected(bin) * to_distance[side] + to_dfl);
        TwoBins(target[side], arguments).take_from(logits, to_dfl);
    }
}

// Memory that the terms need beside their inputs.
template <class Geometry>
struct TermsScratch {
    Anchors anchors;
    Stretch* stretches;
    Sums<Geometry>* sums;  // one per stretch
    double* row_sums;  // (B, C)
    float* tiles;      // one per thread
    Wide* lanes;       // one per thread

    TermsScratch(const KernelArguments& arguments, std::int64_t held, Scratch& scratch)
        : anchors(arguments, scratch), stretches(scratch.take<Stretch>(Stretch::most(arguments, held))),
          sums(scratch.take<Sums<Geometry>>(Stretch::most(arguments, held))), row_sums(scratch.take<double>(arguments.images * arguments.classes)),
          tiles(scratch.take<float>(arguments.threads * HeldTile<Geometry>::size(arguments))),
          lanes(scratch.take<Wide>(arguments.threads * channels<Geometry>(arguments))) {}
};

// Visits all stretches, by several threads: calls `of_lanes` for every WIDE held anchors, and `done` at the end of each stretch.
template <class Geometry, class T, class OfLanes, class Done>
std::int64_t for_each_stretch(const KernelArguments& arguments, const Held& held, std::int64_t count, TermsScratch<Geometry>& scratch,
                              OfLanes of_lanes, Done done) {
    scratch.anchors.fill(arguments);
    const std::int64_t stretches = Stretch::cut(arguments, held, count, scratch.stretches);
    const float sum = sum_of_weights(held, count);
#pragma omp parallel num_threads(arguments.threads)
    {
        HeldTile<Geometry> tile(arguments, scratch.tiles + thread_number() * HeldTile<Geometry>::size(arguments));
        HeldLanes<Geometry> lanes;
        lanes.logits = scratch.lanes + thread_number() * channels<Geometry>(arguments);
#pragma omp for schedule(dynamic)
        for (std::int64_t n = 0; n < stretches; ++n) {
            const Stretch& stretch = scratch.stretches[n];
            if (stretch.count) tile.template read<T>(arguments, held, stretch);
            for (std::int64_t start = 0; start < stretch.count; start += WIDE) {
                lanes.take(arguments, scratch.anchors, held, stretch, start, sum, tile);
                of_lanes(n, lanes, tile, start);
            }
            done(stretch, tile);
        }
    }
    return stretches;
}

// Sums of the terms over all held anchors.
template <class Geometry, class T>
Sums<Geometry> sums_over_held(const KernelArguments& arguments, const Held& held, std::int64_t count, TermsScratch<Geometry>& scratch) {
    std::fill_n(scratch.sums, Stretch::most(arguments, count), Sums<Geometry>());
    const auto add = [&](std::int64_t n, HeldLanes<Geometry>& lanes, HeldTile<Geometry>&, std::int64_t) {
        add_held_terms(arguments, lanes, scratch.sums[n]);
    };
    const std::int64_t stretches =
        for_each_stretch<Geometry, T>(arguments, held, count, scratch, add, [](const Stretch&, HeldTile<Geometry>&) {});
    Sums<Geometry> sums;
    for (std::int64_t n = 0; n < stretches; ++n) sums.add(scratch.sums[n]);
    return sums;
}

// Writes the gradients by the box logits (B, 4R, A) and the angles (B, 1, A), contiguous: zero except at the held anchors.
template <class Geometry, class T>
void boxes_gradient(const KernelArguments& arguments, const Held& held, std::int64_t count, TermsScratch<Geometry>& scratch,
                    const Factors& factors, T* boxes, T* angle) {
    const auto replace = [&](std::int64_t, HeldLanes<Geometry>& lanes, HeldTile<Geometry>& tile, std::int64_t start) {
        held_gradient(arguments, lanes, factors);
        for (std::int64_t channel = 0; channel < channels<Geometry>(arguments); ++channel)
            tile.set(channel, start, __builtin_convertvector(lanes.logits[channel], Half));
    };
    for_each_stretch<Geometry, T>(arguments, held, count, scratch, replace, [&](const Stretch& stretch, HeldTile<Geometry>& tile) {
        tile.write(arguments, held, stretch, boxes, angle);
    });
}

}  // namespace twinloss
