// What the exported functions do, for each geometry and storage of logits.
#pragma once

#include "assignment.hpp"
#include "classification.hpp"
#include "terms.hpp"

namespace twinloss {

enum Storage : std::int32_t { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 2 };

// Calls `visit` with a null pointer whose type is that of the stored logits.
template <class Visit>
auto with_storage(std::int32_t storage, Visit visit) {
    if (storage == FLOAT16) return visit(static_cast<const Float16*>(nullptr));
    if (storage == BFLOAT16) return visit(static_cast<const BFloat16*>(nullptr));
    return visit(static_cast<const float*>(nullptr));
}
template <class Pointer>
using Stored = std::remove_const_t<std::remove_pointer_t<Pointer>>;

// Bytes of scratch memory for the assignment, and for the terms of `held` anchors.
template <class Geometry>
std::int64_t scratch_of_assignment(const KernelArguments& arguments) {
    Scratch scratch(nullptr);
    Assigner<Geometry> assigner(arguments, scratch);
    return scratch.used();
}
template <class Geometry>
std::int64_t scratch_of_terms(const KernelArguments& arguments, std::int64_t held) {
    Scratch one(nullptr), other(nullptr);
    ClassificationScratch of_classes(arguments, held, one);
    TermsScratch<Geometry> of_held(arguments, held, other);
    return std::max(one.used(), other.used());
}

// Fills `held`; returns the number of held anchors.
template <class Geometry>
std::int64_t assign(const KernelArguments& arguments, std::int32_t storage, void* memory, Held& held) {
    Scratch scratch(memory);
    Assigner<Geometry> assigner(arguments, scratch);
    return with_storage(storage, [&](auto type) { return assigner.template run<Stored<decltype(type)>>(held); });
}

// Computes the terms, each divided by S and times its gain, then S, the sum of weights but at least 1; writes them unless `terms` is null.
// Writes the gradients of the loss, which is the terms times the number of images, each times its upstream.
template <class Geometry>
void write_terms(const KernelArguments& arguments, std::int32_t storage, void* memory, const Held& held, std::int64_t count, float* terms,
                 const Gradients& gradients) {
    Scratch one(memory), other(memory);  // the second pass writes over what the first needed
    ClassificationScratch of_classes(arguments, count, one);
    TermsScratch<Geometry> of_held(arguments, count, other);
    const float sum = sum_of_weights(held, count), normaliser = sum < 1.0f ? 1.0f : sum;
    const auto factor = [&](int term) {
        return static_cast<float>(gradients.upstream[term] * arguments.gains[term] * static_cast<double>(arguments.images) / normaliser);
    };
    double classification = 0;
    Sums<Geometry> sums;
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        T *boxes = static_cast<T*>(gradients.boxes), *scores = static_cast<T*>(gradients.scores), *angle = static_cast<T*>(gradients.angle);
        if (terms || scores) classification = classification_term<T>(arguments, held, count, of_classes, factor(1), scores);
        if (terms || boxes)
            sums = sums_over_held<Geometry, T>(arguments, held, count, of_held, {factor(0), factor(2), factor(3)}, boxes, angle);
    });
    if (!terms) return;
    double found[Geometry::HELD_TERMS + 1] = {sums.of[0], classification, sums.of[1]};
    for (int term = 3; term <= Geometry::HELD_TERMS; ++term) found[term] = sums.of[term - 1];
    for (int term = 0; term <= Geometry::HELD_TERMS; ++term) terms[term] = static_cast<float>(found[term] / normaliser * arguments.gains[term]);
    terms[Geometry::HELD_TERMS + 1] = normaliser;
}

}  // namespace twinloss
