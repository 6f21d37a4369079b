// The classification term: the one pass over every class logit, forward and backward (spec section 7).
//
// The targets are zero except at a few held anchors. Binary cross-entropy is therefore Σ softplus(x) − Σ t·x, with the second sum over the
// held anchors alone, and its gradient sigmoid(x) − t. No target tensor is made.
#pragma once

#include "output.hpp"
#include "pyramid.hpp"
#include "storage.hpp"

namespace twinloss {

// Logits that share one logarithm. Π(1 + e^−|x|) over them is at most 2^16, far from overflow.
constexpr int SHARED = 16;

constexpr std::int64_t AHEAD = 512;  // logits between the one that is read and the one that is fetched

// 1 / (1 + e^−x), given e = e^−|x|.
inline Lanes sigmoid(Lanes x, Lanes e) {
    const Lanes reciprocal = 1.0f / (1.0f + e);
    return choose<Lanes>(x < 0.0f, e * reciprocal, reciprocal);
}
inline Lanes sigmoid(Lanes x) { return sigmoid(x, exp_of_negative(negative_magnitude(x))); }

// Adds Σ softplus(x) = Σ max(x, 0) + log Π(1 + e^−|x|) of at most SUMMED * SHARED logits to SUMMED sums. Each product is stored minus 1, so
// that nothing is lost if e^−|x| is far below the rounding unit of 1. Stores sigmoid(x) · scale in `slopes`, whole vectors, unless that is null.
template <class T>
void add_softplus(const T* logits, std::int64_t count, double* sums, float scale, T* slopes) {
    Lanes excess[PARTS]{}, positive[PARTS]{};
    for (std::int64_t i = 0; i < count; i += SUMMED)
        for (int part = 0; part < PARTS; ++part) {
            const std::int64_t at = i + part * LANES;
            fetch(logits + at + AHEAD);
            const Lanes x = load_some(logits + at, count - at, -INFINITY);
            const Lanes e = exp_of_negative(negative_magnitude(x));
            excess[part] = excess[part] + e + excess[part] * e;
            positive[part] += larger(Lanes{}, x);
            if (slopes) store(slopes + at, sigmoid(x, e) * scale);
        }
    for (int part = 0; part < PARTS; ++part) {
        const Lanes found = log_of_one_and(excess[part]) + positive[part];
        for (int lane = 0; lane < LANES; ++lane) sums[part * LANES + lane] += found[lane];
    }
}

template <class T>
const T* scores_at(const KernelArguments& arguments, std::int64_t image, std::int64_t label) {
    return static_cast<const T*>(arguments.scores) + image * arguments.scores_per_image + label * arguments.scores_per_channel;
}

inline float class_weight(const KernelArguments& arguments, std::int64_t label) {
    return arguments.class_weights ? arguments.class_weights[label] : 1.0f;
}

// Held anchors by row of class logits, image · C + label; within a row by anchor.
struct HeldByRow {
    std::int64_t *first, *entry;  // (B·C + 1,), and (H,) entries of the assignment
    float* logit;                 // (H,) of each entry, own class

    HeldByRow(const KernelArguments& arguments, std::int64_t held, Scratch& scratch)
        : first(scratch.take<std::int64_t>(arguments.images * arguments.classes + 1)), entry(scratch.take<std::int64_t>(held)),
          logit(scratch.take<float>(held)) {}

    void fill(const KernelArguments& arguments, const Held& held, std::int64_t count) {
        const std::int64_t rows = arguments.images * arguments.classes;
        const auto row_of = [&](std::int64_t h) { return held.image[h] * arguments.classes + arguments.label[held.row[h]]; };
        std::fill_n(first, rows + 1, 0);
        for (std::int64_t h = 0; h < count; ++h) ++first[row_of(h)];
        for (std::int64_t row = 0, before = 0; row <= rows; ++row) before = first[row] += before;
        for (std::int64_t h = count - 1; h >= 0; --h) entry[--first[row_of(h)]] = h;  // each row's end moves to its begin
    }
};

// One row of class logits: returns Σ softplus(x), and writes (sigmoid(x) − t) · scale into `gradient` unless that is null.
template <class T>
double classify(const KernelArguments& arguments, const Held& held, const HeldByRow& by_row, std::int64_t row, float scale, T* gradient,
                const Output& output) {
    const T* logits = scores_at<T>(arguments, row / arguments.classes, row % arguments.classes);
    const std::int64_t *entry = by_row.entry + by_row.first[row], *last = by_row.entry + by_row.first[row + 1];
    alignas(64) T block[Output::BLOCK];
    double sums[SUMMED] = {};
    for (std::int64_t start = 0; start < arguments.anchors; start += Output::BLOCK) {
        const std::int64_t end = std::min(arguments.anchors, start + Output::BLOCK);
        for (std::int64_t i = start; i < end; i += SUMMED * SHARED)
            add_softplus(logits + i, std::min<std::int64_t>(end - i, SUMMED * SHARED), sums, scale, gradient ? block + (i - start) : nullptr);
        for (; entry != last && held.anchor[*entry] < end; ++entry) {
            const float x = by_row.logit[*entry] = widen(logits[held.anchor[*entry]]);
            if (gradient) block[held.anchor[*entry] - start] = narrow<T>((sigmoid(splat(x))[0] - held.weight[*entry]) * scale);
        }
        if (gradient) output.copy(gradient + start, block, end - start);
    }
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

// Memory that the classification term needs beside its inputs.
struct ClassificationScratch {
    HeldByRow held;
    double* sums;  // (B·C,): the result does not depend on the threads

    ClassificationScratch(const KernelArguments& arguments, std::int64_t held, Scratch& scratch)
        : held(arguments, held, scratch), sums(scratch.take<double>(arguments.images * arguments.classes)) {}
};

// Sum of the term over all of (B, C, A). Writes its gradient times `factor`, contiguous (B, C, A), unless `gradient` is null.
template <class T>
double classification_term(const KernelArguments& arguments, const Held& held, std::int64_t count, ClassificationScratch& scratch, float factor,
                           T* gradient) {
    const std::int64_t rows = arguments.images * arguments.classes;
    const Output output(rows * arguments.anchors * static_cast<std::int64_t>(sizeof(T)));
    scratch.held.fill(arguments, held, count);
#pragma omp parallel num_threads(arguments.threads)
    {
#pragma omp for schedule(static)
        for (std::int64_t row = 0; row < rows; ++row) {
            const float weight = class_weight(arguments, row % arguments.classes);
            T* of_row = gradient ? gradient + row * arguments.anchors : nullptr;
            scratch.sums[row] = classify(arguments, held, scratch.held, row, factor * weight, of_row, output) * weight;
        }
        output.finish();
    }
    double total = 0, correction = 0;
    for (std::int64_t row = 0; row < rows; ++row) total += scratch.sums[row];
    for (std::int64_t h = 0; h < count; ++h)
        correction += static_cast<double>(scratch.held.logit[h]) * held.weight[h] * class_weight(arguments, arguments.label[held.row[h]]);
    return total - correction;
}

}  // namespace twinloss
