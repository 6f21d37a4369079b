// The semantic term: cross-entropy and Dice of the classes' maps, forward and backward (segmentation spec section 5).
//
// A pixel has one class at most: the target is a map of classes, and compared with it a row of logits, those of one image and class, has
// its zeros and ones. With σ for σ(z), a row has the sums
//     entropy = Σ softplus(y ? −z : z)        common = Σ σ·y        either = Σ σ + Σ y
// and, with D = 1 − (2 · common + 1) / (either + 1), the gradient by z
//     (σ − y) · to_entropy + σ (1 − σ) ((2 · common + 1) / (either + 1)² − y · 2 / (either + 1)) · to_dice
#pragma once

#include "classification.hpp"

namespace twinloss {

// Shapes: B images, C classes, maps of `rows` x `columns`.
struct SemanticArguments {
    std::int64_t images, classes, rows, columns, threads;
    const void* logits;  // (B, C, rows, columns), adjacent columns adjacent in memory
    std::int64_t per_image, per_class, per_row;
    const std::int32_t* map;  // (B, rows, columns), contiguous: the class taught, −1 where there is none
};

// Of one image and class.
struct SemanticSums {
    double common, either, entropy;
};

// Calls `visit(logits, map, offset, count)` for every piece of at most MOST pixels of a row of logits that are adjacent in memory.
template <std::int64_t MOST, class T, class Visit>
void for_each_stretch_of(const SemanticArguments& a, std::int64_t row, Visit visit) {
    const std::int64_t image = row / a.classes, label = row % a.classes;
    const T* logits = static_cast<const T*>(a.logits) + image * a.per_image + label * a.per_class;
    const std::int32_t* map = a.map + image * a.rows * a.columns;
    const bool whole = a.per_row == a.columns;
    const std::int64_t lines = whole ? 1 : a.rows, length = whole ? a.rows * a.columns : a.columns;
    for (std::int64_t line = 0; line < lines; ++line)
        for (std::int64_t start = 0; start < length; start += MOST) {
            const std::int64_t offset = line * length + start;
            visit(logits + line * a.per_row + start, map + offset, offset, std::min(MOST, length - start));
        }
}

// The sums of the pixels of one register.
struct SemanticLanes {
    Lanes share{}, common{}, excess{}, positive{};
    Bits<Lanes> ones{};

    // Logits, of which −∞ counts as nothing in every sum, and the lanes whose target is 1.
    void add(Lanes z, Bits<Lanes> y) {
        const Lanes e = exp_of_negative(negative_magnitude(z)), reciprocal = 1.0f / (1.0f + e), of_z = choose<Lanes>(z < 0.0f, e * reciprocal, reciprocal);
        share += of_z;
        common += choose<Lanes>(y, of_z, Lanes{});
        ones -= y;
        excess = excess + e + excess * e;
        positive += larger(Lanes{}, choose<Lanes>(y, -z, z));
    }
    void add_to(SemanticSums& sums) const {
        const Lanes entropy = log_of_one_and(excess) + positive;
        for (int lane = 0; lane < LANES; ++lane) {
            sums.common += common[lane];
            sums.either += static_cast<double>(share[lane]) + ones[lane];
            sums.entropy += entropy[lane];
        }
    }
};

// Lanes whose target is 1, of the first `count`.
inline Bits<Lanes> taught(const std::int32_t* map, std::int32_t label, std::int64_t count) {
    Bits<Lanes> classes = Bits<Lanes>{} - 1;
    std::memcpy(&classes, map, static_cast<std::size_t>(std::min<std::int64_t>(count, LANES)) * sizeof *map);
    return classes == label;
}

template <class T>
SemanticSums semantic_sums(const SemanticArguments& a, std::int64_t row) {
    SemanticSums sums{};
    const auto label = static_cast<std::int32_t>(row % a.classes);
    for_each_stretch_of<SUMMED * SHARED, T>(a, row, [&](const T* logits, const std::int32_t* map, std::int64_t, std::int64_t count) {
        SemanticLanes parts[PARTS];
        for (std::int64_t i = 0; i < count; i += LANES)
            parts[i / LANES % PARTS].add(load_some(logits + i, count - i, -INFINITY), taught(map + i, label, count - i));
        for (const SemanticLanes& part : parts) part.add_to(sums);
    });
    return sums;
}

// The term; `sums` holds B·C entries, in whose order they are added up.
template <class T>
double semantic_term(const SemanticArguments& a, SemanticSums* sums) {
    const std::int64_t rows = a.images * a.classes;
#pragma omp parallel for schedule(static) num_threads(a.threads)
    for (std::int64_t row = 0; row < rows; ++row) sums[row] = semantic_sums<T>(a, row);
    double entropy = 0, dice = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
        entropy += sums[row].entropy;
        dice += (sums[row].either - 2 * sums[row].common) / (sums[row].either + 1);
    }
    return (entropy / static_cast<double>(rows * a.rows * a.columns) + dice / static_cast<double>(rows)) / 2;
}

// Writes the gradient (B, C, rows, columns), contiguous, times `factor`.
template <class T>
void semantic_gradient(const SemanticArguments& a, const SemanticSums* sums, float factor, T* gradient) {
    const std::int64_t rows = a.images * a.classes, pixels = a.rows * a.columns;
    const double to_dice = factor / (2.0 * static_cast<double>(rows)), to_entropy = to_dice / static_cast<double>(pixels);
#pragma omp parallel for schedule(static) num_threads(a.threads)
    for (std::int64_t row = 0; row < rows; ++row) {
        const auto label = static_cast<std::int32_t>(row % a.classes);
        const double common = 2 * sums[row].common + 1, either = sums[row].either + 1;
        const Lanes everywhere = splat(static_cast<float>(common / (either * either) * to_dice)), entropy = splat(static_cast<float>(to_entropy));
        const Lanes at_target = splat(static_cast<float>(2 / either * to_dice)), one = splat(1.0f);
        for_each_stretch_of<LANES, T>(a, row, [&](const T* logits, const std::int32_t* map, std::int64_t offset, std::int64_t count) {
            const Lanes share = sigmoid(load_some(logits, count, 0.0f));
            const Bits<Lanes> y = taught(map, label, count);
            const Lanes slope = share * (one - share);
            const Lanes found = (share - choose<Lanes>(y, one, Lanes{})) * entropy + slope * (everywhere - choose<Lanes>(y, at_target, Lanes{}));
            store_some(gradient + row * pixels + offset, found, count);
        });
    }
}

}  // namespace twinloss
