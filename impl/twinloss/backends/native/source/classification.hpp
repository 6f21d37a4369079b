// The classification term: the one pass over every class logit, forward and backward (spec section 7).
//
// The targets are zero except at a few held anchors. Binary cross-entropy is therefore Σ softplus(x) − Σ t·x, with the second sum over the
// held anchors alone, and its gradient sigmoid(x) − t. No target tensor is made.
#pragma once

#include "pyramid.hpp"
#include "storage.hpp"

namespace twinloss {

// Logits that share one logarithm. Π(1 + e^−|x|) over them is at most 2^16, far from overflow.
constexpr int SHARED = 16;

// Σ softplus(x) = Σ max(x, 0) + log Π(1 + e^−|x|) over a row. Each product is stored minus 1, so that nothing is lost if e^−|x| is far
// below the rounding unit of 1.
template <class T>
double softplus_sum(const T* logits, std::int64_t count) {
    double sum[SUMMED] = {};
    for (std::int64_t start = 0; start < count; start += SUMMED * SHARED) {
        Lanes excess[PARTS]{}, positive[PARTS]{};
        const std::int64_t end = std::min(count, start + SUMMED * SHARED);
        for (std::int64_t i = start; i < end; i += SUMMED)
            for (int part = 0; part < PARTS; ++part) {
                const Lanes x = load_some(logits + i + part * LANES, end - i - part * LANES, -INFINITY);
                const Lanes e = exp_of_negative(-magnitude(x));
                excess[part] = excess[part] + e + excess[part] * e;
                positive[part] += larger(Lanes{}, x);
            }
        for (int part = 0; part < PARTS; ++part) {
            const Lanes found = log_of_one_and(excess[part]) + positive[part];
            for (int lane = 0; lane < LANES; ++lane) sum[part * LANES + lane] += found[lane];
        }
    }
    double total = 0;
    for (const double of_lane : sum) total += of_lane;
    return total;
}

inline Lanes sigmoid(Lanes x) {
    const Lanes e = exp_of_negative(-magnitude(x)), reciprocal = 1.0f / (1.0f + e);
    return choose<Lanes>(x < 0.0f, e * reciprocal, reciprocal);
}

template <class T>
const T* scores_at(const KernelArguments& arguments, std::int64_t image, std::int64_t label) {
    return static_cast<const T*>(arguments.scores) + image * arguments.scores_per_image + label * arguments.scores_per_channel;
}

inline float class_weight(const KernelArguments& arguments, std::int64_t label) {
    return arguments.class_weights ? arguments.class_weights[label] : 1.0f;
}

// Sum of the term over all of (B, C, A). `sums` holds B·C numbers, one per row: the result does not depend on the threads.
template <class T>
double classification_term(const KernelArguments& arguments, const Held& held, std::int64_t count, double* sums) {
    const std::int64_t rows = arguments.images * arguments.classes;
#pragma omp parallel for schedule(static) num_threads(arguments.threads)
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t label = row % arguments.classes;
        sums[row] = softplus_sum(scores_at<T>(arguments, row / arguments.classes, label), arguments.anchors) * class_weight(arguments, label);
    }
    double total = 0, correction = 0;
    for (std::int64_t row = 0; row < rows; ++row) total += sums[row];
    for (std::int64_t h = 0; h < count; ++h) {
        const std::int64_t label = arguments.label[held.row[h]];
        const float x = widen(scores_at<T>(arguments, held.image[h], label)[held.anchor[h]]);
        correction += static_cast<double>(x) * held.weight[h] * class_weight(arguments, label);
    }
    return total - correction;
}

// Gradient (B, C, A), contiguous: (sigmoid(x) − t) · factor · class weight.
template <class T>
void scores_gradient(const KernelArguments& arguments, const Held& held, std::int64_t count, float factor, T* gradient) {
#pragma omp parallel num_threads(arguments.threads)
    {
#pragma omp for schedule(static)
        for (std::int64_t row = 0; row < arguments.images * arguments.classes; ++row) {
            const std::int64_t label = row % arguments.classes;
            const T* logits = scores_at<T>(arguments, row / arguments.classes, label);
            const float scale = factor * class_weight(arguments, label);
            T* of_row = gradient + row * arguments.anchors;
            for (std::int64_t i = 0; i < arguments.anchors; i += LANES) {
                const std::int64_t left = arguments.anchors - i;
                store_some(of_row + i, sigmoid(load_some(logits + i, left, 0.0f)) * scale, left);
            }
        }
#pragma omp for schedule(static)
        for (std::int64_t h = 0; h < count; ++h) {
            const std::int64_t label = arguments.label[held.row[h]];
            const float x = widen(scores_at<T>(arguments, held.image[h], label)[held.anchor[h]]);
            const float scale = factor * class_weight(arguments, label);
            gradient[(held.image[h] * arguments.classes + label) * arguments.anchors + held.anchor[h]] =
                narrow<T>((sigmoid(splat(x))[0] - held.weight[h]) * scale);
        }
    }
}

}  // namespace twinloss
