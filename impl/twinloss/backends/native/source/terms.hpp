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
    struct Values {
        Wide lower, upper;
    };

    // The values of the two bins.
    Values of(const Wide* values) const {
        Values found;
        for (int lane = 0; lane < WIDE; ++lane) {
            found.lower[lane] = values[lower[lane]][lane];
            found.upper[lane] = values[lower[lane] + 1][lane];
        }
        return found;
    }
    // Subtracts from the values of the two bins their shares of `whole`.
    void take_from(Wide* values, Wide whole) const {
        for (int lane = 0; lane < WIDE; ++lane) {
            values[lower[lane]][lane] -= whole[lane] * (1.0 - upper_share[lane]);
            values[lower[lane] + 1][lane] -= whole[lane] * upper_share[lane];
        }
    }
};

// Cross-entropy of one side's distribution with the two bins, given the logits of these.
inline Wide cross_entropy(const TwoBins::Values& logits, const Distribution<Wide>& d, const TwoBins& bins) {
    const Wide mean = (logits.lower - d.largest) * (1.0 - bins.upper_share) + (logits.upper - d.largest) * bins.upper_share;
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

// Factors of the gradients of the box term, the distribution term and the angle term.
struct Factors {
    float box, dfl, angle;
};

// Replaces one side's e^(x − largest), or for R = 1 its distance, by the gradient: `to_distance` by the distance, and the distribution term's.
template <class Geometry>
void side_gradient(const KernelArguments& arguments, HeldLanes<Geometry>& lanes, int side, const Distribution<Wide>& d, Wide target,
                   Wide to_distance, Wide to_dfl) {
    Wide* logits = lanes.bins_of(side, arguments.bins);
    if (arguments.bins == 1) {
        const Wide scale = share_of_image(arguments, lanes.stride, side), off = logits[0] * scale - target * scale;
        const Wide sign = choose<Wide>(off > 0.0, splat<Wide>(1.0), choose<Wide>(off < 0.0, splat<Wide>(-1.0), off));
        logits[0] = to_distance + (arguments.distance_term ? to_dfl * sign * scale : Wide{});
        return;
    }
    const Wide scale = 1.0 / d.total;
    for (std::int64_t bin = 0; bin < arguments.bins; ++bin)
        logits[bin] = logits[bin] * scale * (d.beyond_expected(bin) * to_distance + to_dfl);
    TwoBins(target, arguments).take_from(logits, to_dfl);
}

// Adds the terms of the held anchors in the lanes, one after the other: the sum does not depend on how many fill a register. Replaces their
// logits by the gradient, unless `factors` is null.
template <class Geometry>
void add_held_terms(const KernelArguments& arguments, HeldLanes<Geometry>& lanes, const Factors* factors, Sums<Geometry>& sums) {
    SideLanes distance, target = lanes.truth.target();
    Distribution<Wide> found[SIDES];
    Wide dfl{};
    for (int side = 0; side < SIDES; ++side) {
        Wide* logits = lanes.bins_of(side, arguments.bins);
        if (arguments.bins == 1) {
            const Wide scale = share_of_image(arguments, lanes.stride, side);
            distance[side] = logits[0];
            dfl += magnitude(distance[side] * scale - target[side] * scale);
            continue;
        }
        const TwoBins bins(target[side], arguments);
        const TwoBins::Values at_bins = bins.of(logits);
        found[side] = lanes.distribution(side, arguments.bins);
        distance[side] = found[side].expected();
        dfl += cross_entropy(at_bins, found[side], bins);
    }
    if (arguments.bins == 1 && !arguments.distance_term) dfl = Wide{};
    Wide* angle = lanes.angle(arguments.bins);
    const typename Geometry::Compared compared(arguments, distance, angle, lanes.truth);
    Wide losses[Geometry::HELD_TERMS] = {compared.box_loss() * lanes.weight, dfl * 0.25 * lanes.weight};
    if constexpr (Geometry::ANGLES > 0) losses[2] = compared.angle_loss() * lanes.weight;
    if (factors) {
        const SideLanes to_distance = compared.gradient(factors->box * lanes.weight, factors->angle * lanes.weight, angle);
        const Wide to_dfl = factors->dfl * 0.25 * lanes.weight;
        for (int side = 0; side < SIDES; ++side) side_gradient(arguments, lanes, side, found[side], target[side], to_distance[side], to_dfl);
    }
    sums.add(losses, lanes.count);
}

// Memory that the terms need beside their inputs.
template <class Geometry>
struct TermsScratch {
    Anchors anchors;
    Stretch* stretches;
    Sums<Geometry>* sums;  // one per stretch
    float* tiles;  // one per thread
    Wide* lanes;   // one per thread

    TermsScratch(const KernelArguments& arguments, std::int64_t held, Scratch& scratch)
        : anchors(arguments, scratch), stretches(scratch.take<Stretch>(Stretch::most(arguments, held))),
          sums(scratch.take<Sums<Geometry>>(Stretch::most(arguments, held))),
          tiles(scratch.take<float>(arguments.threads * HeldTile<Geometry>::size(arguments))),
          lanes(scratch.take<Wide>(arguments.threads * channels<Geometry>(arguments))) {}
};

// Sums of the terms over all held anchors. Writes the gradients times `factors`, contiguous: by the box logits (B, 4R, A), and by the angles
// (B, 1, A) where there are any, zero except at the held anchors; none where `boxes` is null.
template <class Geometry, class T>
Sums<Geometry> sums_over_held(const KernelArguments& arguments, const Held& held, std::int64_t count, TermsScratch<Geometry>& scratch,
                              const Factors& factors, T* boxes, T* angle) {
    const Output output(arguments.images * arguments.anchors * channels<Geometry>(arguments) * static_cast<std::int64_t>(sizeof(T)));
    const float sum = sum_of_weights(held, count);
    const std::int64_t stretches = Stretch::cut(arguments, held, count, scratch.stretches);
    scratch.anchors.fill(arguments);
    std::fill_n(scratch.sums, stretches, Sums<Geometry>());
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
                add_held_terms(arguments, lanes, boxes ? &factors : nullptr, scratch.sums[n]);
                if (boxes) tile.put(lanes.logits, start);
            }
            if (boxes) tile.write(arguments, held, stretch, boxes, angle, output);
        }
        output.finish();
    }
    Sums<Geometry> sums;
    for (std::int64_t n = 0; n < stretches; ++n) sums.add(scratch.sums[n]);
    return sums;
}

}  // namespace twinloss
