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
    Scratch scratch(nullptr);
    TermsScratch<Geometry> terms(arguments, held, scratch);
    return scratch.used();
}

// Fills `held`; returns the number of held anchors.
template <class Geometry>
std::int64_t assign(const KernelArguments& arguments, std::int32_t storage, void* memory, Held& held) {
    Scratch scratch(memory);
    Assigner<Geometry> assigner(arguments, scratch);
    return with_storage(storage, [&](auto type) { return assigner.template run<Stored<decltype(type)>>(held); });
}

// Writes the terms, each divided by S and times its gain, then S, the sum of weights but at least 1.
template <class Geometry>
void write_terms(const KernelArguments& arguments, std::int32_t storage, void* memory, const Held& held, std::int64_t count, float* terms) {
    Scratch scratch(memory);
    TermsScratch<Geometry> terms_scratch(arguments, count, scratch);
    const float sum = sum_of_weights(held, count), normaliser = sum < 1.0f ? 1.0f : sum;
    double classification = 0;
    Sums<Geometry> sums;
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        classification = classification_term<T>(arguments, held, count, terms_scratch.row_sums);
        sums = sums_over_held<Geometry, T>(arguments, held, count, terms_scratch);
    });
    double found[Geometry::HELD_TERMS + 1] = {sums.of[0], classification, sums.of[1]};
    for (int term = 3; term <= Geometry::HELD_TERMS; ++term) found[term] = sums.of[term - 1];
    for (int term = 0; term <= Geometry::HELD_TERMS; ++term) terms[term] = static_cast<float>(found[term] / normaliser * arguments.gains[term]);
    terms[Geometry::HELD_TERMS + 1] = normaliser;
}

// Writes the gradients by the box logits, contiguous (B, 4R, A), and by the angles, (B, 1, A), where there are any.
template <class Geometry>
void write_boxes_gradient(const KernelArguments& arguments, std::int32_t storage, void* memory, const Held& held, std::int64_t count,
                          const Factors& factors, void* boxes, void* angle) {
    Scratch scratch(memory);
    TermsScratch<Geometry> terms_scratch(arguments, count, scratch);
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        boxes_gradient<Geometry, T>(arguments, held, count, terms_scratch, factors, static_cast<T*>(boxes), static_cast<T*>(angle));
    });
}

}  // namespace twinloss
