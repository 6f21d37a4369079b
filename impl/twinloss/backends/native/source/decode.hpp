// Predicted boxes in pixels, at the anchors that are candidates of some ground-truth box (spec section 4).
#pragma once

#include "pyramid.hpp"
#include "storage.hpp"

namespace twinloss {

// Softmax of one side's R logits at adjacent anchors. The mean bin index is computed relative to the bin of the largest logit (the mode):
// for a sharp distribution the difference is small, and so is its rounding error.
template <class V>
struct Distribution {
    V largest, total;    // largest logit, and Σ e^(x − largest)
    V mode, from_mode;   // bin of the largest logit, and mean bin index minus that bin

    // `logits(bin)` returns the logits of a vector of anchors; `keep(bin, e)` is called with e = e^(x − largest).
    template <class Logits, class Keep>
    static Distribution of(std::int64_t bins, Logits logits, Keep keep) {
        Distribution d{logits(0), V{}, V{}, V{}};
        for (std::int64_t bin = 1; bin < bins; ++bin) {
            const V x = logits(bin);
            d.mode = choose<V>(x > d.largest, splat<V>(static_cast<Number<V>>(bin)), d.mode);
            d.largest = larger(d.largest, x);
        }
        V moment{};
        for (std::int64_t bin = 0; bin < bins; ++bin) {
            const V e = exp_of_negative(logits(bin) - d.largest);
            keep(bin, e);
            d.total += e;
            moment += e * (static_cast<Number<V>>(bin) - d.mode);
        }
        d.from_mode = moment / d.total;
        return d;
    }
    V expected() const { return mode + from_mode; }
    V beyond_expected(std::int64_t bin) const { return static_cast<Number<V>>(bin) - mode - from_mode; }
};

// Distances of adjacent anchors to one side, in grid units; for R = 1 the logits themselves (spec section 7).
template <class T>
Lanes distances(const T* logits, std::int64_t per_bin, std::int64_t bins, std::int64_t count) {
    constexpr std::int64_t AHEAD = 128;
    const auto of_bin = [&](std::int64_t bin) { return load_some(logits + bin * per_bin, count, 0.0f); };
    if (bins == 1) return of_bin(0);
    for (std::int64_t bin = 0; bin < bins; ++bin) fetch(logits + bin * per_bin + AHEAD);
    return Distribution<Lanes>::of(bins, of_bin, [](std::int64_t, Lanes) {}).expected();
}

// The numbers of every predicted box, each (B, A). Anchors in no window keep undefined values.
template <class Geometry>
struct Predicted {
    std::uint8_t* needed;
    float* number[Geometry::NUMBERS];

    Predicted(const KernelArguments& arguments, Scratch& scratch) {
        const std::int64_t cells = arguments.images * arguments.anchors;
        needed = scratch.take<std::uint8_t>(cells);
        for (float*& column : number) column = scratch.take<float>(cells);
    }

    template <class T>
    void fill(const KernelArguments& arguments, const Anchors& anchors, const GroundTruth<Geometry>& truth, const Window* windows) {
        const std::int64_t tiles = (arguments.anchors + TILE - 1) / TILE;
#pragma omp parallel num_threads(arguments.threads)
        {
#pragma omp for schedule(dynamic)
            for (std::int64_t image = 0; image < arguments.images; ++image) mark(arguments, truth, windows, image);
#pragma omp for schedule(dynamic)
            for (std::int64_t tile = 0; tile < arguments.images * tiles; ++tile) {
                const std::int64_t image = tile / tiles, start = tile % tiles * TILE;
                decode<T>(arguments, anchors, image, start, std::min(start + TILE, arguments.anchors));
            }
        }
    }

   private:
    static constexpr std::int64_t TILE = 512;  // anchors per task of a thread

    void mark(const KernelArguments& arguments, const GroundTruth<Geometry>& truth, const Window* windows, std::int64_t image) {
        std::uint8_t* of_image = needed + image * arguments.anchors;
        std::memset(of_image, 0, static_cast<std::size_t>(arguments.anchors));
        for (std::int64_t box = truth.first[image]; box < truth.first[image + 1]; ++box) {
            if (!Geometry::decodes(truth.box[box])) continue;
            std::uint8_t* of_level = of_image;
            for (std::int64_t level = 0; level < arguments.levels; ++level) {
                const Window& w = windows[box * arguments.levels + level];
                const std::int64_t columns = arguments.grid_columns[level];
                const float stride = static_cast<float>(arguments.strides[level]);
                if (w.columns > 0)
                    for (std::int64_t y = w.y; y < w.y + w.rows; ++y) {
                        const Run run = Geometry::candidates(truth.box[box], w, y, stride);
                        std::memset(of_level + y * columns + run.x, 1, static_cast<std::size_t>(run.columns));
                    }
                of_level += arguments.grid_rows[level] * columns;
            }
        }
    }

    // The outer loop runs over the sides, so that few rows of logits are read at a time.
    template <class T>
    void decode(const KernelArguments& arguments, const Anchors& anchors, std::int64_t image, std::int64_t start, std::int64_t end) {
        const T* logits = static_cast<const T*>(arguments.boxes) + image * arguments.boxes_per_image;
        Lanes side[SIDES][TILE / LANES];
        for (int s = 0; s < SIDES; ++s, logits += arguments.bins * arguments.boxes_per_channel)
            for_each_needed(arguments, image, start, end, [&](std::int64_t anchor, std::int64_t count) {
                side[s][(anchor - start) / LANES] = distances(logits + anchor, arguments.boxes_per_channel, arguments.bins, count);
            });
        for_each_needed(arguments, image, start, end, [&](std::int64_t anchor, std::int64_t count) {
            Lanes read[SIDES + Geometry::ANGLES], numbers[Geometry::NUMBERS];
            for (int s = 0; s < SIDES; ++s) read[s] = side[s][(anchor - start) / LANES];
            if constexpr (Geometry::ANGLES > 0)
                read[SIDES] = load_some(static_cast<const T*>(arguments.angle) + image * arguments.angle_per_image + anchor, count, 0.0f);
            Geometry::predict(arguments, read, load(anchors.x + anchor), load(anchors.y + anchor), load(anchors.stride + anchor), numbers);
            for (int n = 0; n < Geometry::NUMBERS; ++n) store_some(number[n] + image * arguments.anchors + anchor, numbers[n], count);
        });
    }

    template <class Visit>
    void for_each_needed(const KernelArguments& arguments, std::int64_t image, std::int64_t start, std::int64_t end, Visit visit) const {
        for (std::int64_t anchor = start; anchor < end; anchor += LANES) {
            const std::int64_t count = std::min<std::int64_t>(end - anchor, LANES);
            if (std::memchr(needed + image * arguments.anchors + anchor, 1, static_cast<std::size_t>(count))) visit(anchor, count);
        }
    }
};

}  // namespace twinloss
