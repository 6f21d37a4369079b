// Arguments of one call, in the layout that `library.py` writes, and the division of its scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace twinloss {

constexpr int MOST_LEVELS = 16;

// Shapes: B images, C classes, A anchors, R bins, L levels, N rows of ground truth.
struct KernelArguments {
    std::int64_t images, classes, bins, anchors, levels, rows, threads;
    std::int64_t grid_rows[MOST_LEVELS], grid_columns[MOST_LEVELS], strides[MOST_LEVELS];

    const void *boxes, *scores;  // (B, 4R, A) and (B, C, A) logits, adjacent anchors adjacent in memory
    std::int64_t boxes_per_image, boxes_per_channel, scores_per_image, scores_per_channel;  // strides, in elements

    const std::int64_t *image, *label;  // (N,)
    const float* box;                   // (N, 4) centre and size, divided by the image's width and height; (N, 5) with the angle
    const float* class_weights;         // (C,) or null

    std::int64_t topk, topk2;                  // topk2 is 0 if there is no second cut
    float alpha, beta, assign_eps, ciou_eps;
    float lengthened_below, shortest_side;     // pixels
    float longest;                             // upper limit of target distances in the distribution term, in grid units
    float gains[4];  // box, classification, distribution, angle
    std::int32_t overlap_decides;              // conflicts: 1 for "overlap", 0 for "pickers"
    std::int32_t distance_term, summed_weights;

    // Oriented boxes alone; `angle` is null for upright ones.
    const void* angle;  // (B, 1, A), adjacent anchors adjacent in memory
    std::int64_t angle_per_image;
    float probiou_eps, term_floor, angle_scale;

    // Keypoints alone; `kpts` is null without them. n keypoints, E numbers of a predicted one, 2 or 3 of a true one.
    const void* kpts;  // (B, n·E, A) raw predictions, adjacent anchors adjacent in memory
    std::int64_t kpts_per_image, kpts_per_channel, points, point_numbers, target_numbers;
    const float* keypoints;  // (N, n, 2 or 3) divided by the image's width and height
    const float* doubled;    // (n,) 8σ²
    float point_factor, point_shift;  // a position is factor · raw + centre − shift
    const void* sigmas;  // (B, 2n, A) raw deviations, adjacent anchors adjacent in memory; null without a likelihood
    std::int64_t sigmas_per_image, sigmas_per_channel;
    const float* point_weights;  // (n,) ω
    float sigma_floor;           // τ

    const struct MaskArguments* masks;  // of the mask-aware assignment; null for any other

    float height() const { return static_cast<float>(grid_rows[0] * strides[0]); }
    float width() const { return static_cast<float>(grid_columns[0] * strides[0]); }
    std::int64_t kept() const { return topk < anchors ? topk : anchors; }  // K, or A if there are fewer anchors
};

// The assignment: held anchors, sorted by image, then anchor; each column has `capacity` entries.
struct Held {
    std::int64_t *image, *anchor, *row;
    float* weight;
    std::int64_t capacity;
};

// Where the gradients by the logits go, contiguous and in the logits' storage, null for what nobody asked for; and by how much each term
// counts in them: box, classification, distribution, angle.
struct Gradients {
    void *boxes, *scores, *angle;
    double upstream[4];
};

// Divides one piece of memory among arrays. Given a null pointer, it only counts the bytes that they need.
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
