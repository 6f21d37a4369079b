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
inline Wide share_of_image(const KernelArguments& arguments, const HeldLanes& lanes, int side) {
    return lanes.stride / (side % 2 ? arguments.height() : arguments.width());
}

struct Sums {
    double box = 0, dfl = 0;

    void add(Wide of_box, Wide of_dfl, int count) {
        for (int lane = 0; lane < count; ++lane) box += of_box[lane], dfl += of_dfl[lane];
    }
    void add(const Sums& other) { box += other.box, dfl += other.dfl; }
};

inline Sums held_terms(const KernelArguments& arguments, HeldLanes& lanes) {
    SideLanes distance, target = lanes.target();
    Wide dfl{};
    for (int side = 0; side < SIDES; ++side) {
        const Wide* logits = lanes.bins_of(side, arguments.bins);
        if (arguments.bins == 1) {
            const Wide scale = share_of_image(arguments, lanes, side);
            distance[side] = logits[0];
            dfl += magnitude(distance[side] * scale - target[side] * scale);
        } else {
            const Distribution<Wide> d = lanes.distribution(side, arguments.bins);
            distance[side] = d.expected();
            dfl += cross_entropy(logits, d, TwoBins(target[side], arguments));
        }
    }
    if (arguments.bins == 1 && !arguments.distance_term) dfl = Wide{};
    const CornersOf<Wide> predicted = corners_at(distance);
    const float eps = arguments.ciou_eps;
    const CompleteIoU<Wide> iou(predicted, Shape<Wide>(predicted, eps), lanes.truth, Shape<Wide>(lanes.truth, eps), eps);
    Sums sums;
    sums.add((1.0 - iou.value) * lanes.weight, dfl * 0.25 * lanes.weight, lanes.count);
    return sums;
}

// Replaces the logits in the lanes by their gradient.
inline void held_gradient(const KernelArguments& arguments, HeldLanes& lanes, float box_factor, float dfl_factor) {
    SideLanes distance, to_distance, target = lanes.target();
    Distribution<Wide> found[SIDES];
    for (int side = 0; side < SIDES; ++side) {
        if (arguments.bins > 1) found[side] = lanes.distribution_in_place(side, arguments.bins);
        distance[side] = arguments.bins > 1 ? found[side].expected() : lanes.bins_of(side, arguments.bins)[0];
    }
    const CornersOf<Wide> predicted = corners_at(distance);
    const Shape<Wide> shape(predicted, arguments.ciou_eps);
    const CompleteIoU<Wide> iou(predicted, shape, lanes.truth, Shape<Wide>(lanes.truth, arguments.ciou_eps), arguments.ciou_eps);
    const CornersOf<Wide> by_corner = ciou_gradient(predicted, shape, lanes.truth, iou);
    const Wide share = -box_factor * lanes.weight;
    to_distance = {{-by_corner.x1 * share, -by_corner.y1 * share, by_corner.x2 * share, by_corner.y2 * share}};
    const Wide to_dfl = dfl_factor * 0.25 * lanes.weight;
    for (int side = 0; side < SIDES; ++side) {
        Wide* logits = lanes.logits + side * arguments.bins;
        if (arguments.bins == 1) {
            const Wide scale = share_of_image(arguments, lanes, side), off = logits[0] * scale - target[side] * scale;
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
struct TermsScratch {
    Anchors anchors;
    Stretch* stretches;
    Sums* sums;        // one per stretch
    double* row_sums;  // (B, C)
    float* tiles;      // one per thread
    Wide* lanes;       // one per thread

    TermsScratch(const KernelArguments& arguments, std::int64_t held, Scratch& scratch)
        : anchors(arguments, scratch), stretches(scratch.take<Stretch>(Stretch::most(arguments, held))),
          sums(scratch.take<Sums>(Stretch::most(arguments, held))), row_sums(scratch.take<double>(arguments.images * arguments.classes)),
          tiles(scratch.take<float>(arguments.threads * HeldTile::size(arguments))),
          lanes(scratch.take<Wide>(arguments.threads * SIDES * arguments.bins)) {}
};

// Visits all stretches, by several threads: calls `of_lanes` for every WIDE held anchors, and `done` at the end of each stretch.
template <class T, class OfLanes, class Done>
std::int64_t for_each_stretch(const KernelArguments& arguments, const Held& held, std::int64_t count, TermsScratch& scratch, OfLanes of_lanes,
                              Done done) {
    scratch.anchors.fill(arguments);
    const std::int64_t stretches = Stretch::cut(arguments, held, count, scratch.stretches);
    const float sum = sum_of_weights(held, count);
#pragma omp parallel num_threads(arguments.threads)
    {
        HeldTile tile(arguments, scratch.tiles + thread_number() * HeldTile::size(arguments));
        HeldLanes lanes;
        lanes.logits = scratch.lanes + thread_number() * SIDES * arguments.bins;
#pragma omp for schedule(dynamic)
        for (std::int64_t n = 0; n < stretches; ++n) {
            const Stretch& stretch = scratch.stretches[n];
            if (stretch.count) tile.read<T>(arguments, held, stretch);
            for (std::int64_t start = 0; start < stretch.count; start += WIDE) {
                lanes.take(arguments, scratch.anchors, held, stretch, start, sum, tile);
                of_lanes(n, lanes, tile, start);
            }
            done(stretch, tile);
        }
    }
    return stretches;
}

// Sums of both terms over all held anchors.
template <class T>
Sums box_and_dfl_terms(const KernelArguments& arguments, const Held& held, std::int64_t count, TermsScratch& scratch) {
    std::fill_n(scratch.sums, Stretch::most(arguments, count), Sums());
    const auto add = [&](std::int64_t n, HeldLanes& lanes, HeldTile&, std::int64_t) { scratch.sums[n].add(held_terms(arguments, lanes)); };
    const std::int64_t stretches = for_each_stretch<T>(arguments, held, count, scratch, add, [](const Stretch&, HeldTile&) {});
    Sums sums;
    for (std::int64_t n = 0; n < stretches; ++n) sums.add(scratch.sums[n]);
    return sums;
}

// Writes the gradient (B, 4R, A), contiguous: zero except at the held anchors.
template <class T>
void boxes_gradient(const KernelArguments& arguments, const Held& held, std::int64_t count, TermsScratch& scratch, float box_factor, float dfl_factor,
                    T* gradient) {
    const auto replace = [&](std::int64_t, HeldLanes& lanes, HeldTile& tile, std::int64_t start) {
        held_gradient(arguments, lanes, box_factor, dfl_factor);
        for (std::int64_t channel = 0; channel < SIDES * arguments.bins; ++channel)
            tile.set(channel, start, __builtin_convertvector(lanes.logits[channel], Half));
    };
    for_each_stretch<T>(arguments, held, count, scratch, replace,
                        [&](const Stretch& stretch, HeldTile& tile) { tile.write(arguments, held, stretch, gradient); });
}

}  // namespace twinloss
