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
    for (std::int64_t k = 0; k < arguments.points; ++k, column += arguments.point_numbers, slopes += arguments.point_numbers) {
        const bool visible = visible_keypoint(arguments, row, k);
        slopes[0] = slopes[1] = 0;
        if (visible) {
            double off[2], squared = 0;
            for (int c = 0; c < 2; ++c) {
                off[c] = place.off(k, c, column[c]);
                squared += off[c] * off[c];
            }
            const double spread = arguments.doubled[k] * (area + EPS);
            const Wide exponent = splat<Wide>(-squared / spread), closeness = exp_of_negative(exponent);
            sums.location += one_less_exp(exponent)[0] * share;
            for (int c = 0; c < 2; ++c)  // what is infinitely far costs 1 and does not pull
                if (!std::isinf(off[c])) slopes[c] = static_cast<float>(2 * arguments.point_factor * off[c] * closeness[0] / spread * share);
        }
        if (arguments.point_numbers < 3) continue;
        const double right = visible ? column[2] : -column[2];
        const Wide e = exp_of_negative(splat<Wide>(-std::fabs(right)));
        sums.visibility += (std::fmax(-right, 0.0) + log_of_one_and(e)[0]) * of_logit;
        slopes[2] = static_cast<float>((visible ? -of_logit : of_logit) * (right < 0 ? 1 : e[0]) / (1 + e[0]));
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
