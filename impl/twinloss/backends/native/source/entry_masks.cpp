// The functions on masks that `library.py` calls.
#include "entry.hpp"
#include "mask_term.hpp"
#include "semantic.hpp"

using namespace twinloss;

#pragma GCC visibility push(default)
extern "C" {

std::int64_t twinloss_mask_arguments_size() { return sizeof(MaskArguments) + sizeof(HeldMasks) + sizeof(SemanticArguments); }

// Bytes of scratch memory for one pass, and of the targets that the first keeps for the second.
std::int64_t twinloss_scratch_of_masks(const MaskArguments* arguments, const HeldMasks* held, std::int32_t backward) {
    Scratch scratch(nullptr);
    MaskTerm term(*arguments, *held, backward != 0, scratch);
    return scratch.used();
}
std::int64_t twinloss_kept_of_masks(const MaskArguments* arguments, const HeldMasks* held) {
    Scratch scratch(nullptr);
    return Pieces(*arguments, *held, scratch).kept_bytes();
}

// Writes the term, and what the gradients need.
void twinloss_mask_term(const MaskArguments* arguments, const HeldMasks* held, std::int32_t storage, void* memory, std::uint8_t* kept, float* term) {
    Scratch scratch(memory);
    MaskTerm of(*arguments, *held, false, scratch);
    *term = static_cast<float>(with_storage(storage, [&](auto type) { return of.forward<Stored<decltype(type)>>(kept); }));
}

// Writes the gradients by coefficients (B, P, A) and, if they are not null, prototypes (B, P, h_p, w_p), both contiguous, times `factor`.
void twinloss_mask_gradients(const MaskArguments* arguments, const HeldMasks* held, std::int32_t storage, void* memory, const std::uint8_t* kept,
                             float factor, void* coefficients, void* prototypes) {
    Scratch scratch(memory);
    MaskTerm of(*arguments, *held, true, scratch);
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        of.backward<T>(kept, factor, static_cast<T*>(coefficients), static_cast<T*>(prototypes));
    });
}

// Writes the semantic term, and for each image and class the SemanticSums that the gradient needs.
void twinloss_semantic_term(const SemanticArguments* arguments, std::int32_t storage, void* sums, float* term) {
    *term = static_cast<float>(
        with_storage(storage, [&](auto type) { return semantic_term<Stored<decltype(type)>>(*arguments, static_cast<SemanticSums*>(sums)); }));
}

// Writes the gradient by the semantic logits (B, C, h_s, w_s), contiguous, times `factor`.
void twinloss_semantic_gradient(const SemanticArguments* arguments, std::int32_t storage, const void* sums, float factor, void* gradient) {
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        semantic_gradient<T>(*arguments, static_cast<const SemanticSums*>(sums), factor, static_cast<T*>(gradient));
    });
}
}
#pragma GCC visibility pop
