// Sixteen held anchors at a time: their logits, gathered, and what they are to predict. They are few, so all about them is computed in double.
#pragma once

#include "decode.hpp"

namespace twinloss {

constexpr int SIDES = 4;  // left, top, right, bottom

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

struct HeldGroup {
    int count;  // lanes beyond it repeat the last anchor, with weight 0
    std::int64_t image[LANES], anchor[LANES];
    Wide stride, weight;
    CornersOf<Wide> truth;  // grid units, from the anchor's centre: corners near each other then differ by no more than they must
    Wide* logits;      // [side · R + bin]

    template <class T>
    void gather(const Problem& problem, const Anchors& anchors, const Held& held, std::int64_t first, std::int64_t all, float sum) {
        count = static_cast<int>(all - first < LANES ? all - first : LANES);
        const T* from[LANES];
        for (int lane = 0; lane < LANES; ++lane) {
            const std::int64_t h = first + (lane < count ? lane : count - 1);
            image[lane] = held.image[h];
            anchor[lane] = held.anchor[h];
            const double x = anchors.x[anchor[lane]], y = anchors.y[anchor[lane]];
            stride[lane] = anchors.stride[anchor[lane]];
            weight[lane] = lane >= count ? 0.0f : problem.summed_weights ? sum : held.weight[h];
            const Corners c = pixel_corners(problem, held.row[h]);
            truth.x1[lane] = c.x1 / stride[lane] - x;
            truth.y1[lane] = c.y1 / stride[lane] - y;
            truth.x2[lane] = c.x2 / stride[lane] - x;
            truth.y2[lane] = c.y2 / stride[lane] - y;
            from[lane] = static_cast<const T*>(problem.boxes) + image[lane] * problem.boxes_per_image + anchor[lane];
        }
        for (std::int64_t channel = 0; channel < SIDES * problem.bins; ++channel)
            for (int lane = 0; lane < LANES; ++lane) logits[channel][lane] = widen(from[lane][channel * problem.boxes_per_channel]);
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
