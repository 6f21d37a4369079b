// Anchors and ground truth (spec sections 2 and 3), and windows of anchors (spec section 5.1).
#pragma once

#include <cmath>

#include "arguments.hpp"

namespace twinloss {

// Centres in grid units and strides of the A anchors; x runs fastest, then y, then the level.
struct Anchors {
    float *x, *y, *stride;

    Anchors(const KernelArguments& arguments, Scratch& scratch)
        : x(scratch.take<float>(arguments.anchors + 16)), y(scratch.take<float>(arguments.anchors + 16)),
          stride(scratch.take<float>(arguments.anchors + 16)) {}

    void fill(const KernelArguments& arguments) {
        std::int64_t anchor = 0;
        for (std::int64_t level = 0; level < arguments.levels; ++level)
            for (std::int64_t row = 0; row < arguments.grid_rows[level]; ++row)
                for (std::int64_t column = 0; column < arguments.grid_columns[level]; ++column, ++anchor) {
                    x[anchor] = static_cast<float>(column) + 0.5f;
                    y[anchor] = static_cast<float>(row) + 0.5f;
                    stride[anchor] = static_cast<float>(arguments.strides[level]);
                }
        for (std::int64_t beyond = anchor; beyond < anchor + 16; ++beyond) x[beyond] = y[beyond] = stride[beyond] = 1.0f;
    }
};

// Keypoint k of a row of the batch, and whether it is visible.
inline const float* target_keypoint(const KernelArguments& arguments, std::int64_t row, std::int64_t k) {
    return arguments.keypoints + (row * arguments.points + k) * arguments.target_numbers;
}
inline bool visible_keypoint(const KernelArguments& arguments, std::int64_t row, std::int64_t k) {
    return arguments.target_numbers < 3 || target_keypoint(arguments, row, k)[2] != 0;
}

// The `columns` x `rows` cells of one level whose first is (x, y).
struct Window {
    std::int32_t x, y, columns, rows;
};

// Adjacent cells of one row.
struct Run {
    std::int32_t x, columns;
};

// First cell along one axis whose centre lies strictly between low and high, and the number of such cells.
inline void cells_between(float low, float high, float stride, std::int64_t size, float eps, std::int32_t& first, std::int32_t& count) {
    const float cells = static_cast<float>(size);
    float from = std::fmin(std::fmax(std::floor(low / stride - 0.5f), 0.0f), cells);
    float to = std::fmin(std::fmax(std::ceil(high / stride - 0.5f), -1.0f), cells - 1);
    // Rounding the quotient can be wrong by a cell, so the definition's own test decides at both ends; two steps correct more than that.
    for (int step = 0; step < 2; ++step) {
        if (!((from + 0.5f) * stride - low > eps)) ++from;
        if (!(high - (to + 0.5f) * stride > eps)) --to;
    }
    first = static_cast<std::int32_t>(from);
    count = to >= from ? static_cast<std::int32_t>(to - from) + 1 : 0;
}

// Valid boxes of images and classes that exist, by image and, within an image, by order of arrival; the n-th is row[n] of the batch.
template <class Geometry>
struct GroundTruth {
    using Box = typename Geometry::Box;

    std::int64_t count = 0;
    std::int64_t *row, *first;  // first[b]: the first box of image b; first[B] = count
    Box* box;

    GroundTruth(const KernelArguments& arguments, Scratch& scratch)
        : row(scratch.take<std::int64_t>(arguments.rows)), first(scratch.take<std::int64_t>(arguments.images + 1)),
          box(scratch.take<Box>(arguments.rows)) {}

    void fill(const KernelArguments& arguments) {
        for (std::int64_t image = 0; image <= arguments.images; ++image) first[image] = 0;
        for (std::int64_t r = 0; r < arguments.rows; ++r)
            if (exists(arguments, r) && Geometry::valid(Geometry::pixels(arguments, r))) ++first[arguments.image[r] + 1];
        for (std::int64_t image = 0; image < arguments.images; ++image) first[image + 1] += first[image];
        count = first[arguments.images];
        for (std::int64_t r = 0; r < arguments.rows; ++r) {
            const auto pixels = Geometry::pixels(arguments, r);
            if (!exists(arguments, r) || !Geometry::valid(pixels)) continue;
            const std::int64_t place = first[arguments.image[r]]++;
            row[place] = r;
            box[place] = Geometry::box(arguments, pixels);
        }
        // The loop above moved each to the end of its image.
        for (std::int64_t image = arguments.images; image > 0; --image) first[image] = first[image - 1];
        first[0] = 0;
    }

    static bool exists(const KernelArguments& arguments, std::int64_t r) {
        const std::int64_t image = arguments.image[r], label = arguments.label[r];
        return image >= 0 && image < arguments.images && label >= 0 && label < arguments.classes;
    }

    std::int64_t image(const KernelArguments& arguments, std::int64_t n) const { return arguments.image[row[n]]; }
    std::int64_t label(const KernelArguments& arguments, std::int64_t n) const { return arguments.label[row[n]]; }
};

}  // namespace twinloss
