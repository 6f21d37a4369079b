// The three products of a tile: logits = columns · prototypes; gradient of columns = residuals · prototypesᵀ; gradient of prototypes =
// columnsᵀ · residuals. P is padded to a multiple of BLOCK with zeros, a tile has TILE_PIXELS pixels, and anchors come BLOCK at a time.
//
//              pixels →                      each product computes BLOCK x BLOCK or BLOCK x ACROSS vectors in registers:
//     tile     [P][TILE_PIXELS]              a vector is read once for BLOCK anchors or prototypes
//     columns  [anchors][P]                  coefficients
//     logits   [anchors][TILE_PIXELS]        then residuals, in place
#pragma once

#include "lanes.hpp"
#include "mask_pieces.hpp"
#include "storage.hpp"

namespace twinloss {

constexpr int BLOCK = 4;
constexpr int ACROSS = LANES == 16 ? 4 : 2;  // vectors side by side, as many as there are registers for
static_assert(TILE_PIXELS % (LANES * ACROSS) == 0);

inline std::int64_t padded(std::int64_t count) { return (count + BLOCK - 1) / BLOCK * BLOCK; }

// Vectors of the first `pixels` pixels of a tile, as many as the products compute.
inline std::int64_t vectors_of(std::int64_t pixels) { return (pixels + LANES * ACROSS - 1) / (LANES * ACROSS) * ACROSS; }

// into[m][pixel] = Σ_k weight(m, k) · from[k][pixel] for BLOCK rows m, added to what is there if `add`.
template <class Weight>
void weighted_rows(std::int64_t terms, Weight weight, const float* from, std::int64_t vectors, bool add, float* const* into) {
    for (std::int64_t v = 0; v < vectors; v += ACROSS) {
        Lanes sum[BLOCK][ACROSS];
        for (int m = 0; m < BLOCK; ++m)
            for (int n = 0; n < ACROSS; ++n) sum[m][n] = add ? load(into[m] + (v + n) * LANES) : Lanes{};
        for (std::int64_t k = 0; k < terms; ++k) {
            Lanes x[ACROSS];
            for (int n = 0; n < ACROSS; ++n) x[n] = load(from + k * TILE_PIXELS + (v + n) * LANES);
            for (int m = 0; m < BLOCK; ++m) {
                const Lanes w = splat(weight(m, k));
                for (int n = 0; n < ACROSS; ++n) sum[m][n] += w * x[n];
            }
        }
        for (int m = 0; m < BLOCK; ++m)
            for (int n = 0; n < ACROSS; ++n) store(into[m] + (v + n) * LANES, sum[m][n]);
    }
}

// SUMMED sums over pixels, side by side.
struct Summed {
    Lanes part[PARTS];

    float total() const {
        float sum = 0;
        for (const Lanes& lanes : part)
            for (int lane = 0; lane < LANES; ++lane) sum += lanes[lane];
        return sum;
    }
};

// Adds to sums[m][n] the products of BLOCK rows and BLOCK columns over the pixels, lane by lane; one part of the sums at a time is in registers.
inline void add_inner_products(const float* const* rows, const float* tile, std::int64_t vectors, Summed* const* sums) {
    for (int part = 0; part < PARTS; ++part) {
        Lanes sum[BLOCK][BLOCK];
        for (int m = 0; m < BLOCK; ++m)
            for (int n = 0; n < BLOCK; ++n) sum[m][n] = sums[m][n].part[part];
        for (std::int64_t v = part; v < vectors; v += PARTS) {
            Lanes x[BLOCK];
            for (int n = 0; n < BLOCK; ++n) x[n] = load(tile + n * TILE_PIXELS + v * LANES);
            for (int m = 0; m < BLOCK; ++m) {
                const Lanes r = load(rows[m] + v * LANES);
                for (int n = 0; n < BLOCK; ++n) sum[m][n] += r * x[n];
            }
        }
        for (int m = 0; m < BLOCK; ++m)
            for (int n = 0; n < BLOCK; ++n) sums[m][n].part[part] = sum[m][n];
    }
}

}  // namespace twinloss
