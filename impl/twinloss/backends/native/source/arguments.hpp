// What one call is told, in the layout that `library.py` writes, and where its scratch memory lies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace twinloss {

constexpr int MOST_LEVELS = 16;

// Shapes: B images, C classes, A anchors, R bins, L levels, N rows of ground truth.
struct KernelArguments {
    std::int64_t images, classes, bins, anchors, levels, rows, threads;
    std::int64_t grid_rows[MOST_LEVELS], grid_columns[MOST_LEVELS], strides[MOST_LEVELS];

    const void *boxes, *scores;  // (B, 4R, A) and (B, C, A) logits, neighbouring anchors side by side
    std::int64_t boxes_per_image, boxes_per_channel, scores_per_image, scores_per_channel;  // elements from one to the next

    const std::int64_t *image, *label;  // (N,)
    const float* box;                   // (N, 4) centre and size, divided by the image's width and height
    const float* class_weights;         // (C,) or null

    std::int64_t topk, topk2;                  // topk2 is 0 where there is no second cut
    float alpha, beta, assign_eps, ciou_eps;
    float lengthened_below, shortest_side;     // pixels
    float longest;                             // target distance that the distribution term knows, in grid units
    float gains[3];
    std::int32_t overlap_decides;              // conflicts: 1 by overlap, 0 among the pickers
    std::int32_t distance_term, summed_weights;

    float height() const { return static_cast<float>(grid_rows[0] * strides[0]); }
    float width() const { return static_cast<float>(grid_columns[0] * strides[0]); }
    std::int64_t kept() const { return topk < anchors ? topk : anchors; }  // K, or all anchors where there are fewer
};

// Held anchors, sorted by image, then anchor, at most `capacity` of them.
struct Held {
    std::int64_t *image, *anchor, *row;
    float* weight;
    std::int64_t capacity;
};

// Hands out pieces of one block of memory; of none, it counts what would be needed.
class Scratch {
   public:
    explicit Scratch(void* base) : base_(static_cast<char*>(base)) {}

    template <class T>
    T* take(std::int64_t count) {
        used_ = (used_ + 63) / 64 * 64;  // a cache line of its own
        char* here = base_ + used_;
        used_ += static_cast<std::size_t>(count) * sizeof(T);
        return base_ ? reinterpret_cast<T*>(here) : nullptr;
    }
    std::int64_t used() const { return static_cast<std::int64_t>(used_); }

   private:
    char* base_;
    std::size_t used_ = 0;
};

}  // namespace twinloss
