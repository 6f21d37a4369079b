// The functions that `library.py` calls.
#include "assignment.hpp"
#include "classification.hpp"
#include "terms.hpp"

namespace {

using namespace twinloss;

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

}  // namespace

extern "C" {

// Size of the arguments, by which a caller detects a library of another version.
std::int64_t twinloss_arguments_size() { return sizeof(KernelArguments); }

// Bytes of scratch memory for the assignment, and for the terms of `held` anchors.
std::int64_t twinloss_scratch_of_assignment(const KernelArguments* arguments) {
    Scratch scratch(nullptr);
    Assigner assigner(*arguments, scratch);
    return scratch.used();
}
std::int64_t twinloss_scratch_of_terms(const KernelArguments* arguments, std::int64_t held) {
    Scratch scratch(nullptr);
    TermsScratch terms(*arguments, held, scratch);
    return scratch.used();
}

// First row whose image or class does not exist; −1 if there is none.
std::int64_t twinloss_first_bad_row(const KernelArguments* arguments) {
    for (std::int64_t row = 0; row < arguments->rows; ++row) {
        const std::int64_t image = arguments->image[row], label = arguments->label[row];
        if (image < 0 || image >= arguments->images || label < 0 || label >= arguments->classes) return row;
    }
    return -1;
}

// First entry of a given assignment that is out of range or out of order; −1 if there is none.
std::int64_t twinloss_first_bad_entry(const KernelArguments* arguments, const Held* held, std::int64_t count) {
    std::int64_t before = -1;
    for (std::int64_t h = 0; h < count; ++h) {
        const std::int64_t image = held->image[h], anchor = held->anchor[h], row = held->row[h];
        if (image < 0 || image >= arguments->images || anchor < 0 || anchor >= arguments->anchors || row < 0 || row >= arguments->rows) return h;
        const std::int64_t cell = image * arguments->anchors + anchor;
        if (cell <= before) return h;
        before = cell;
    }
    return -1;
}

// Fills `held`; returns the number of held anchors.
std::int64_t twinloss_assign(const KernelArguments* arguments, std::int32_t storage, void* memory, Held* held) {
    Scratch scratch(memory);
    Assigner assigner(*arguments, scratch);
    return with_storage(storage, [&](auto type) { return assigner.run<Stored<decltype(type)>>(*held); });
}

// Writes the three terms, each divided by S and times its gain, then S, the sum of weights but at least 1.
void twinloss_terms(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held, std::int64_t count, float* terms) {
    Scratch scratch(memory);
    TermsScratch terms_scratch(*arguments, count, scratch);
    const float sum = sum_of_weights(*held, count), normaliser = sum < 1.0f ? 1.0f : sum;
    double classification = 0;
    Sums sums;
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        classification = classification_term<T>(*arguments, *held, count, terms_scratch.row_sums);
        sums = box_and_dfl_terms<T>(*arguments, *held, count, terms_scratch);
    });
    const double found[3] = {sums.box, classification, sums.dfl};
    for (int term = 0; term < 3; ++term) terms[term] = static_cast<float>(found[term] / normaliser * arguments->gains[term]);
    terms[3] = normaliser;
}

// Writes the gradient by the class logits, contiguous (B, C, A), times `factor`.
void twinloss_scores_gradient(const KernelArguments* arguments, std::int32_t storage, const Held* held, std::int64_t count, float factor,
                              void* gradient) {
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        scores_gradient<T>(*arguments, *held, count, factor, static_cast<T*>(gradient));
    });
}

// Writes the gradient by the box logits, contiguous (B, 4R, A), of box term · box_factor + distribution term · dfl_factor.
void twinloss_boxes_gradient(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held, std::int64_t count,
                             float box_factor, float dfl_factor, void* gradient) {
    Scratch scratch(memory);
    TermsScratch terms_scratch(*arguments, count, scratch);
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        boxes_gradient<T>(*arguments, *held, count, terms_scratch, box_factor, dfl_factor, static_cast<T*>(gradient));
    });
}
}
