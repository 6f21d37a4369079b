// Location and visibility of the held anchors' keypoints, forward and backward (pose spec sections 3, 6 and 8).
//
// A held anchor's n · E predictions lie far apart, one in each channel's row. They are gathered into its column once: the terms and their
// slopes are computed on columns (H, n · E), and whoever else needs them (the likelihood, on torch) takes the columns and gives back their
// gradient, so that the dense gradient is written once.
#pragma once

#include <algorithm>
#include <cmath>

#include "pyramid.hpp"
#include "storage.hpp"

namespace twinloss {

// Of a held anchor.
struct KeypointSums {
    double location, visibility, likelihood;
};

// Memory that the keypoint terms need beside their inputs.
struct KeypointScratch {
    Anchors anchors;
    std::int64_t* first;  // (B + 1,) first held anchor of each image
    KeypointSums* sums;   // (H,)

    KeypointScratch(const KernelArguments& arguments, std::int64_t held, Scratch& scratch)
        : anchors(arguments, scratch), first(scratch.take<std::int64_t>(arguments.images + 1)), sums(scratch.take<KeypointSums>(held)) {}

    void find_first(const KernelArguments& arguments, const Held& held, std::int64_t count) {
        for (std::int64_t image = 0; image <= arguments.images; ++image) first[image] = std::lower_bound(held.image, held.image + count, image) - held.image;
    }
};

// Where an anchor's keypoints are predicted, and where those of its box are, a row of the batch.
struct KeypointPlace {
    const KernelArguments& arguments;
    std::int64_t row;
    double stride, centre[2], size[2];

    KeypointPlace(const KernelArguments& arguments, const Anchors& anchors, std::int64_t anchor, std::int64_t row)
        : arguments(arguments), row(row), stride(anchors.stride[anchor]), centre{anchors.x[anchor], anchors.y[anchor]},
          size{arguments.width(), arguments.height()} {}

    // Predicted minus true coordinate c of keypoint k, in cells.
    double off(std::int64_t k, int c, float raw) const {
        const double target = target_keypoint(arguments, row, k)[c] * size[c];
        return static_cast<double>(raw) * arguments.point_factor + (centre[c] - arguments.point_shift - target / stride);
    }
};

// Gathers (H, channels) columns of one image's held anchors from its rows of channels.
template <class T>
void gather_columns(const T* row, std::int64_t per_channel, std::int64_t channels, const Held& held, std::int64_t from, std::int64_t to,
                    float* columns) {
    for (std::int64_t channel = 0; channel < channels; ++channel, row += per_channel)
        for (std::int64_t h = from; h < to; ++h) columns[h * channels + channel] = widen(row[held.anchor[h]]);
}

// Writes a dense gradient (B, channels, A), contiguous: `value(h, channel)` at the held anchors, which `first` counts by image, 0 elsewhere.
template <class T, class Value>
void scatter_columns(const KernelArguments& arguments, const Held& held, const std::int64_t* first, std::int64_t channels, T* gradient,
                     Value value) {
#pragma omp parallel for schedule(static) num_threads(arguments.threads)
    for (std::int64_t n = 0; n < arguments.images * channels; ++n) {
        const std::int64_t image = n / channels, channel = n % channels;
        T* row = gradient + n * arguments.anchors;
        std::memset(static_cast<void*>(row), 0, static_cast<std::size_t>(arguments.anchors) * sizeof(T));
        for (std::int64_t h = first[image]; h < first[image + 1]; ++h) row[held.anchor[h]] = narrow<T>(value(h, channel));
    }
}

// Sums over the keypoints of a held anchor; replaces its column in `slopes` by the derivatives of both terms.
inline KeypointSums keypoint_terms_of(const KernelArguments& arguments, const Anchors& anchors, std::int64_t anchor, std::int64_t row, double held,
                                      const float* column, float* slopes) {
    constexpr double EPS = 1e-9;
    const KeypointPlace place(arguments, anchors, anchor, row);
    const float* box = arguments.box + 4 * row;
    const double area = box[2] * place.size[0] * (box[3] * place.size[1]) / (place.stride * place.stride);
    std::int64_t seen = 0;
    for (std::int64_t k = 0; k < arguments.points; ++k) seen += visible_keypoint(arguments, row, k);
    const double share = 1 / ((static_cast<double>(seen) + EPS) * held), of_logit = 1 / (static_cast<double>(arguments.points) * held);
    KeypointSums sums{};
    for (std::int64_t first = 0; first < arguments.points; first += WIDE) {  // a register of keypoints at a time
        const int some = static_cast<int>(std::min<std::int64_t>(arguments.points - first, WIDE));
        double off[WIDE][2], spread[WIDE];
        Wide exponent{}, right{};  // −squared distance / spread; the visibility logit, negative where it is wrong
        bool visible[WIDE];
        for (int i = 0; i < some; ++i) {
            const float* predicted = column + (first + i) * arguments.point_numbers;
            visible[i] = visible_keypoint(arguments, row, first + i);
            for (int c = 0; c < 2; ++c) off[i][c] = visible[i] ? place.off(first + i, c, predicted[c]) : 0;
            spread[i] = arguments.doubled[first + i] * (area + EPS);
            exponent[i] = -(off[i][0] * off[i][0] + off[i][1] * off[i][1]) / spread[i];
            if (arguments.point_numbers > 2) right[i] = visible[i] ? predicted[2] : -predicted[2];
        }
        const Wide closeness = exp_of_negative(exponent), away = one_less_exp(exponent), e = exp_of_negative(-magnitude(right));
        const Wide wrong = larger(-right, Wide{}) + log_of_one_and(e), slope = choose<Wide>(right < 0.0, splat<Wide>(1.0), e) / (1.0 + e);
        for (int i = 0; i < some; ++i) {
            float* by = slopes + (first + i) * arguments.point_numbers;
            by[0] = by[1] = 0;
            if (visible[i]) sums.location += away[i] * share;
            for (int c = 0; c < 2; ++c)  // what is infinitely far costs 1 and does not pull
                if (visible[i] && !std::isinf(off[i][c]))
                    by[c] = static_cast<float>(2 * arguments.point_factor * off[i][c] * closeness[i] / spread[i] * share);
            if (arguments.point_numbers < 3) continue;
            sums.visibility += wrong[i] * of_logit;
            by[2] = static_cast<float>((visible[i] ? -of_logit : of_logit) * slope[i]);
        }
    }
    return sums;
}

// Gathers the columns, and writes both terms, without gains, and their slopes by the columns.
template <class T>
KeypointSums keypoint_terms(const KernelArguments& arguments, const Held& held, std::int64_t count, KeypointScratch& scratch, float* columns,
                            float* slopes) {
    scratch.anchors.fill(arguments);
    scratch.find_first(arguments, held, count);
    const std::int64_t channels = arguments.points * arguments.point_numbers;
#pragma omp parallel for schedule(dynamic) num_threads(arguments.threads)
    for (std::int64_t image = 0; image < arguments.images; ++image) {
        const std::int64_t from = scratch.first[image], to = scratch.first[image + 1];
        const T* row = static_cast<const T*>(arguments.kpts) + image * arguments.kpts_per_image;
        gather_columns(row, arguments.kpts_per_channel, channels, held, from, to, columns);
        for (std::int64_t h = from; h < to; ++h)
            scratch.sums[h] = keypoint_terms_of(arguments, scratch.anchors, held.anchor[h], held.row[h], static_cast<double>(count),
                                                columns + h * channels, slopes + h * channels);
    }
    KeypointSums sums{};
    for (std::int64_t h = 0; h < count; ++h) sums.location += scratch.sums[h].location, sums.visibility += scratch.sums[h].visibility;
    return sums;
}

// Writes the gradient (B, n · E, A), contiguous: slopes times the factor of their term, plus `further` by the columns unless it is null.
template <class T>
void keypoints_gradient(const KernelArguments& arguments, const Held& held, std::int64_t count, KeypointScratch& scratch, float location,
                        float visibility, const float* slopes, const float* further, T* gradient) {
    scratch.find_first(arguments, held, count);
    const std::int64_t channels = arguments.points * arguments.point_numbers;
    scatter_columns(arguments, held, scratch.first, channels, gradient, [&](std::int64_t h, std::int64_t channel) {
        const float own = slopes[h * channels + channel] * (channel % arguments.point_numbers < 2 ? location : visibility);
        return further ? own + further[h * channels + channel] : own;
    });
}

}  // namespace twinloss
