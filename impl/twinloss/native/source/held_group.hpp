// Sixteen held anchors at a time: their logits, gathered, and what they are to predict.
#pragma once

#include "decode.hpp"

namespace twinloss {

constexpr int SIDES = 4;  // left, top, right, bottom

struct SideLanes {
    Lanes of[SIDES];

    Lanes& operator[](int side) { return of[side]; }
    const Lanes& operator[](int side) const { return of[side]; }
};

inline float sum_of_weights(const Held& held, std::int64_t count) {
    double sum = 0;
    for (std::int64_t h = 0; h < count; ++h) sum += held.weight[h];
    return static_cast<float>(sum);
}

struct HeldGroup {
    int count;  // lanes beyond it repeat the last anchor, with weight 0
    std::int64_t image[LANES], anchor[LANES];
    Lanes x, y, stride, weight;
    CornerLanes truth;  // grid units
    Lanes* logits;      // [side · R + bin]

    template <class T>
    void gather(const Problem& problem, const Anchors& anchors, const Held& held, std::int64_t first, std::int64_t all, float sum) {
        count = static_cast<int>(all - first < LANES ? all - first : LANES);
        const T* from[LANES];
        for (int lane = 0; lane < LANES; ++lane) {
            const std::int64_t h = first + (lane < count ? lane : count - 1);
            image[lane] = held.image[h];
            anchor[lane] = held.anchor[h];
            x[lane] = anchors.x[anchor[lane]];
            y[lane] = anchors.y[anchor[lane]];
            stride[lane] = anchors.stride[anchor[lane]];
            weight[lane] = lane >= count ? 0.0f : problem.summed_weights ? sum : held.weight[h];
            const Corners c = pixel_corners(problem, held.row[h]);
            truth.x1[lane] = c.x1 / stride[lane];
            truth.y1[lane] = c.y1 / stride[lane];
            truth.x2[lane] = c.x2 / stride[lane];
            truth.y2[lane] = c.y2 / stride[lane];
            from[lane] = static_cast<const T*>(problem.boxes) + image[lane] * problem.boxes_per_image + anchor[lane];
        }
        for (std::int64_t channel = 0; channel < SIDES * problem.bins; ++channel)
            for (int lane = 0; lane < LANES; ++lane) logits[channel][lane] = widen(from[lane][channel * problem.boxes_per_channel]);
    }

    const Lanes* bins_of(int side, std::int64_t bins) const { return logits + side * bins; }

    CornerLanes corners(const SideLanes& distance) const {
        return {x - distance[0], y - distance[1], x + distance[2], y + distance[3]};
    }
    SideLanes target() const { return {{x - truth.x1, y - truth.y1, truth.x2 - x, truth.y2 - y}}; }
};

}  // namespace twinloss
