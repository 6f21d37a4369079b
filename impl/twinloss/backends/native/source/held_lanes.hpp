// A few held anchors at a time: their logits, and what they are to predict. They are few, so all about them is computed in double.
#pragma once

#include "decode.hpp"
#include "held_tile.hpp"

namespace twinloss {

struct SideLanes {
    Wide of[SIDES];

    Wide& operator[](int side) { return of[side]; }
    const Wide& operator[](int side) const { return of[side]; }
};

inline float sum_of_weights(const Held& held, std::int64_t count) {
    double sum = 0;
    for (std::int64_t h = 0; h < count; ++h) sum += held.weight[h];
    return static_cast<float>(sum);
}

// Corners at the given distances from the anchor's centre, which is (0, 0).
inline CornersOf<Wide> corners_at(const SideLanes& distance) { return {-distance[0], -distance[1], distance[2], distance[3]}; }

struct HeldLanes {
    int count;  // lanes beyond it repeat the last anchor, with weight 0
    Wide stride, weight;
    CornersOf<Wide> truth;  // grid units, from the anchor's centre: corners near each other then differ by no more than they must
    Wide* logits;           // [side · R + bin]

    // Those of a stretch from its `start`-th on; `sum` is that of all weights.
    void take(const KernelArguments& arguments, const Anchors& anchors, const Held& held, const Stretch& stretch, std::int64_t start, float sum,
              const HeldTile& tile) {
        count = static_cast<int>(std::min<std::int64_t>(stretch.count - start, WIDE));
        for (int lane = 0; lane < WIDE; ++lane) {
            const std::int64_t h = stretch.first + start + (lane < count ? lane : count - 1), anchor = held.anchor[h];
            const double x = anchors.x[anchor], y = anchors.y[anchor];
            stride[lane] = anchors.stride[anchor];
            weight[lane] = lane >= count ? 0.0f : arguments.summed_weights ? sum : held.weight[h];
            const Corners c = pixel_corners(arguments, held.row[h]);
            truth.x1[lane] = c.x1 / stride[lane] - x;
            truth.y1[lane] = c.y1 / stride[lane] - y;
            truth.x2[lane] = c.x2 / stride[lane] - x;
            truth.y2[lane] = c.y2 / stride[lane] - y;
        }
        for (std::int64_t channel = 0; channel < SIDES * arguments.bins; ++channel) logits[channel] = __builtin_convertvector(tile.get(channel, start), Wide);
    }

    const Wide* bins_of(int side, std::int64_t bins) const { return logits + side * bins; }

    Distribution<Wide> distribution(int side, std::int64_t bins) const {
        const Wide* x = bins_of(side, bins);
        return Distribution<Wide>::of(bins, [x](std::int64_t bin) { return x[bin]; }, [](std::int64_t, Wide) {});
    }
    // Leaves e^(x − largest) in the place of the logits.
    Distribution<Wide> distribution_in_place(int side, std::int64_t bins) {
        Wide* x = logits + side * bins;
        return Distribution<Wide>::of(bins, [x](std::int64_t bin) { return x[bin]; }, [x](std::int64_t bin, Wide e) { x[bin] = e; });
    }
    SideLanes target() const { return {{-truth.x1, -truth.y1, truth.x2, truth.y2}}; }
};

}  // namespace twinloss
