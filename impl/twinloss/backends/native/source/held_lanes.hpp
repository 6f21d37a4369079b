// The WIDE held anchors that fill one register: their logits and targets, in double, which is cheap because few anchors are held.
//
// Lane i of every vector belongs to the i-th of them. With WIDE = 8 (AVX-512), R = 16, and a stretch of 10 held anchors h0 … h9:
//
//     lane                    0    1    2   …   7   │   0    1    2   …   7
//     entry of `held`        h0   h1   h2   …  h7   │  h8   h9   h9   …  h9   `take` at start = 0, then at start = 8
//     weight                 t0   t1   t2   …  t7   │  t8   t9    0   …   0   `count` = 8, then 2; lanes beyond it weigh 0
//     logits[0]  left, bin 0  x    x    x   …   x
//     …
//     logits[17] top,  bin 1  x    x    x   …   x        `logits[side · R + bin]`: 4R vectors, gathered from far-apart rows
//
// A softmax over the bins of one side runs down a column, so that no lane needs another; all lanes take the same steps.
#pragma once

#include "decode.hpp"
#include "held_tile.hpp"

namespace twinloss {

inline float sum_of_weights(const Held& held, std::int64_t count) {
    double sum = 0;
    for (std::int64_t h = 0; h < count; ++h) sum += held.weight[h];
    return static_cast<float>(sum);
}

template <class Geometry>
struct HeldLanes {
    int count;  // lanes beyond it repeat the last anchor with weight 0
    Wide stride, weight;
    typename Geometry::HeldTruth truth;
    Wide* logits;  // [side · R + bin], then the angle where there is one

    // Fills the lanes with the held anchors of a stretch from its `start`-th on; `sum` is the sum of all weights.
    void take(const KernelArguments& arguments, const Anchors& anchors, const Held& held, const Stretch& stretch, std::int64_t start, float sum,
              const HeldTile<Geometry>& tile) {
        count = static_cast<int>(std::min<std::int64_t>(stretch.count - start, WIDE));
        for (int lane = 0; lane < WIDE; ++lane) {
            const std::int64_t h = stretch.first + start + (lane < count ? lane : count - 1), anchor = held.anchor[h];
            const double x = anchors.x[anchor], y = anchors.y[anchor];
            stride[lane] = anchors.stride[anchor];
            weight[lane] = lane >= count ? 0.0f : arguments.summed_weights ? sum : held.weight[h];
            truth.set(lane, Geometry::pixels(arguments, held.row[h]), stride[lane], x, y);
        }
        truth.finish();
        for (std::int64_t channel = 0; channel < channels<Geometry>(arguments); ++channel)
            logits[channel] = __builtin_convertvector(tile.get(channel, start), Wide);
    }

    Wide* bins_of(int side, std::int64_t bins) { return logits + side * bins; }

    // Replaces the side's logits by e^(x − largest).
    Distribution<Wide> distribution(int side, std::int64_t bins) {
        Wide* x = bins_of(side, bins);
        return Distribution<Wide>::of(bins, [x](std::int64_t bin) { return x[bin]; }, [x](std::int64_t bin, Wide e) { x[bin] = e; });
    }
    Wide* angle(std::int64_t bins) { return logits + SIDES * bins; }
};

}  // namespace twinloss
