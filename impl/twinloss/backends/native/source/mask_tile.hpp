// One tile of a piece: its prototypes in float32, on the masks' grid, and the adjoint of reading them (segmentation spec section 4).
#pragma once

#include "mask_products.hpp"

namespace twinloss {

// The two neighbours that a resized axis reads at one place, and the share of the farther one.
struct Neighbours {
    std::int64_t near, far;
    float share;

    Neighbours(std::int64_t place, std::int64_t size, std::int64_t resized) {
        const float scale = static_cast<float>(static_cast<double>(size) / static_cast<double>(resized));
        const float at = std::max((static_cast<float>(place) + 0.5f) * scale - 0.5f, 0.0f);
        near = std::min(static_cast<std::int64_t>(at), size - 1), far = std::min(near + 1, size - 1);
        share = at - std::floor(at);
    }
};

class MaskTile {
   public:
    // Room for P x TILE_PIXELS numbers, and for the places that a resized grid reads.
    MaskTile(const MaskArguments& arguments, Scratch& scratch)
        : arguments_(arguments), values_(scratch.take<float>(padded(arguments.prototypes) * TILE_PIXELS)),
          taps_(scratch.take<Tap>(arguments.same_grid() ? 0 : TAPS * TILE_PIXELS)) {}

    const float* values() const { return values_; }

    // Reads the pixels of one image's prototypes; those beyond `count` are 0.
    template <class T>
    void read(const Piece& piece, const std::int64_t* crop, std::int64_t image, std::int64_t start, std::int64_t count) {
        const T* of_image = static_cast<const T*>(arguments_.grids) + image * arguments_.grids_per_image;
        if (!arguments_.same_grid()) place_taps(piece, crop, start, count);
        const std::int64_t end = vectors_of(count) * LANES;
        for (std::int64_t p = 0; p < padded(arguments_.prototypes); ++p) {
            float* into = values_ + p * TILE_PIXELS;
            if (p >= arguments_.prototypes) std::fill_n(into, end, 0.0f);
            else if (arguments_.same_grid()) copy(of_image + p * arguments_.grids_per_channel, piece, crop, start, count, into);
            else interpolate(of_image + p * arguments_.grids_per_channel, count, into);
            std::fill(into + count, into + end, 0.0f);
        }
    }

    // Adds the gradient by the values to that by the prototypes, [P][tall of the band][wide]; `top` is the band's first row.
    void add_adjoint(const Piece& piece, const std::int64_t* crop, std::int64_t start, std::int64_t count, const float* by_value,
                     std::int64_t top, std::int64_t band_size, float* band) const {
        for (std::int64_t p = 0; p < arguments_.prototypes; ++p, by_value += TILE_PIXELS, band += band_size) {
            if (arguments_.same_grid())
                for_each_run(piece, crop, start, count, [&](std::int64_t y, std::int64_t x, std::int64_t offset, std::int64_t length) {
                    float* to = band + (y - top) * arguments_.wide + x;
                    for (std::int64_t i = 0; i < length; ++i) to[i] += by_value[offset + i];
                });
            else
                for (std::int64_t i = 0; i < count; ++i)
                    for (int t = 0; t < TAPS; ++t) {
                        const Tap& tap = taps_[i * TAPS + t];
                        band[tap.y * arguments_.wide + tap.x] += by_value[i] * tap.weight;
                    }
        }
    }

   private:
    static constexpr int TAPS = 4;

    struct Tap {
        std::int32_t y, x;
        float weight;
    };

    template <class T>
    void copy(const T* grid, const Piece& piece, const std::int64_t* crop, std::int64_t start, std::int64_t count, float* into) const {
        for_each_run(piece, crop, start, count, [&](std::int64_t y, std::int64_t x, std::int64_t offset, std::int64_t length) {
            const T* from = grid + y * arguments_.grids_per_row + x;
            for (std::int64_t i = 0; i < length; ++i) into[offset + i] = widen(from[i]);
        });
    }

    void place_taps(const Piece& piece, const std::int64_t* crop, std::int64_t start, std::int64_t count) {
        for_each_run(piece, crop, start, count, [&](std::int64_t y, std::int64_t x, std::int64_t offset, std::int64_t length) {
            const Neighbours down(y, arguments_.tall, arguments_.rows);
            for (std::int64_t i = 0; i < length; ++i) {
                const Neighbours across(x + i, arguments_.wide, arguments_.columns);
                Tap* tap = taps_ + (offset + i) * TAPS;
                for (int t = 0; t < TAPS; ++t)
                    tap[t] = {static_cast<std::int32_t>(t / 2 ? down.far : down.near), static_cast<std::int32_t>(t % 2 ? across.far : across.near),
                              (t / 2 ? down.share : 1 - down.share) * (t % 2 ? across.share : 1 - across.share)};
            }
        });
    }

    // A place of weight 0 is not read: infinity and NaN there have no effect.
    template <class T>
    void interpolate(const T* grid, std::int64_t count, float* into) const {
        for (std::int64_t i = 0; i < count; ++i) {
            float sum = 0;
            for (int t = 0; t < TAPS; ++t) {
                const Tap& tap = taps_[i * TAPS + t];
                if (tap.weight != 0) sum += widen(grid[tap.y * arguments_.grids_per_row + tap.x]) * tap.weight;
            }
            into[i] = sum;
        }
    }

    const MaskArguments& arguments_;
    float* values_;
    Tap* taps_;
};

// The targets of a tile's pixels: read from the masks in the first pass, which keeps them, and from what was kept in the second.
struct MaskTargets {
    float value[TILE_PIXELS];

    template <class M>
    void read(const MaskArguments& arguments, const Piece& piece, const std::int64_t* crop, std::int64_t image, std::int64_t row,
              std::int64_t start, std::int64_t count, std::uint8_t* kept) {
        const std::int64_t which = arguments.place ? image : row, index = arguments.place ? arguments.place[row] + 1 : 0;
        const M wanted = static_cast<M>(index);
        const bool there = static_cast<std::int64_t>(wanted) == index;  // else no map of this dtype holds the index
        const M* mask = static_cast<const M*>(arguments.masks) + which * arguments.masks_per_mask;
        for_each_run(piece, crop, start, count, [&](std::int64_t y, std::int64_t x, std::int64_t offset, std::int64_t length) {
            const M* from = mask + y * arguments.masks_per_row + x;
            float* into = value + offset;
            if (arguments.place)
                for (std::int64_t i = 0; i < length; ++i) into[i] = there && from[i] == wanted ? 1.0f : 0.0f;
            else if (arguments.fractions())
                for (std::int64_t i = 0; i < length; ++i) into[i] = static_cast<float>(from[i]);
            else
                for (std::int64_t i = 0; i < length; ++i) into[i] = from[i] != 0 ? 1.0f : 0.0f;
        });
        std::fill(value + count, value + TILE_PIXELS, 0.0f);
        if (arguments.fractions()) {
            std::memcpy(kept + start * static_cast<std::int64_t>(sizeof(float)), value, static_cast<std::size_t>(count) * sizeof(float));
            return;
        }
        for (std::int64_t byte = 0; byte < TILE_PIXELS / 8; ++byte) {
            unsigned bits = 0;
            for (int bit = 0; bit < 8; ++bit) bits |= static_cast<unsigned>(value[byte * 8 + bit]) << bit;
            kept[start / 8 + byte] = static_cast<std::uint8_t>(bits);
        }
    }

    void restore(const MaskArguments& arguments, const std::uint8_t* kept, std::int64_t start, std::int64_t count) {
        if (arguments.fractions()) {
            std::memcpy(value, kept + start * static_cast<std::int64_t>(sizeof(float)), static_cast<std::size_t>(count) * sizeof(float));
            std::fill(value + count, value + TILE_PIXELS, 0.0f);
            return;
        }
        for (std::int64_t i = 0; i < TILE_PIXELS; ++i) value[i] = static_cast<float>(kept[(start + i) / 8] >> (i % 8) & 1);
    }
};

}  // namespace twinloss
