// Arguments of the functions on masks, in the layout that `library.py` writes (segmentation spec sections 1, 3 and 4).
#pragma once

#include "arguments.hpp"
#include "lanes.hpp"

namespace twinloss {

enum MaskStorage : std::int64_t { MASK_UINT8 = 0, MASK_INT32 = 1, MASK_INT64 = 2, MASK_FLOAT32 = 3 };

// Predictions and true masks. Shapes: B images, P prototypes on a grid of `tall` x `wide`, A anchors, true masks of `rows` x `columns`.
struct MaskArguments {
    std::int64_t images, anchors, prototypes, tall, wide, rows, columns, threads;

    const void* coefficients;  // (B, P, A), adjacent anchors adjacent in memory
    std::int64_t coefficients_per_image, coefficients_per_channel;
    const void* grids;  // (B, P, tall, wide), adjacent columns adjacent in memory
    std::int64_t grids_per_image, grids_per_channel, grids_per_row;

    const void* masks;  // index maps (B, rows, columns), or instance masks (N, rows, columns), adjacent columns adjacent in memory
    std::int64_t mask_storage, masks_per_mask, masks_per_row;
    const std::int64_t* place;  // (N,) of each row of the batch within its image, for index maps; null for instance masks

    bool same_grid() const { return tall == rows && wide == columns; }
    bool fractions() const { return !place && mask_storage == MASK_FLOAT32; }  // whether targets can be other than 0 and 1
};

// Held anchors by box: g boxes that hold any, n held anchors.
struct HeldMasks {
    std::int64_t boxes, held;
    const std::int64_t *row, *image, *crop;     // (g,), (g,) and (g, 4): [x1, x2) and [y1, y2) as x1, y1, x2, y2
    const float* factor;                        // (g,) what a pixel counts
    const std::int64_t *order, *first, *count;  // (n,) held anchors by box; (g,) where each box's begin, and how many there are
    const std::int64_t* anchor;                 // (n,) within its image
};

// Calls `visit` with a null pointer whose type is that of the stored masks.
template <class Visit>
auto with_mask_storage(std::int64_t storage, Visit visit) {
    if (storage == MASK_INT32) return visit(static_cast<const std::int32_t*>(nullptr));
    if (storage == MASK_INT64) return visit(static_cast<const std::int64_t*>(nullptr));
    if (storage == MASK_FLOAT32) return visit(static_cast<const float*>(nullptr));
    return visit(static_cast<const std::uint8_t*>(nullptr));
}

}  // namespace twinloss
