// The functions that `library.py` calls for oriented boxes. In a file of its own, so that the compiler's limits on inlining, which count a
// file's code, are those of upright boxes alone in the other.
#include "entry.hpp"
#include "oriented.hpp"

using namespace twinloss;

#pragma GCC visibility push(default)
extern "C" {

std::int64_t twinloss_oriented_scratch_of_assignment(const KernelArguments* arguments) { return scratch_of_assignment<Oriented>(*arguments); }

std::int64_t twinloss_oriented_scratch_of_terms(const KernelArguments* arguments, std::int64_t held) {
    return scratch_of_terms<Oriented>(*arguments, held);
}

std::int64_t twinloss_oriented_assign(const KernelArguments* arguments, std::int32_t storage, void* memory, Held* held) {
    return assign<Oriented>(*arguments, storage, memory, *held);
}

// Terms in the order box, classification, distribution, angle.
void twinloss_oriented_terms(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held, std::int64_t count,
                             float* terms, const Gradients* gradients) {
    write_terms<Oriented>(*arguments, storage, memory, *held, count, terms, *gradients);
}
}
#pragma GCC visibility pop
