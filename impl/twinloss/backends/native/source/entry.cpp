// The functions that `library.py` calls: those for all boxes, and those for upright ones. `entry_oriented.cpp` has the latter again.
#include "entry.hpp"
#include "upright.hpp"

using namespace twinloss;

#pragma GCC visibility push(default)
extern "C" {

// Size of the arguments, by which a caller detects a library of another version.
std::int64_t twinloss_arguments_size() { return sizeof(KernelArguments); }

// First entry of a given assignment that is out of range or out of order, or whose box has a class that does not exist; −1 if there is none.
std::int64_t twinloss_first_bad_entry(const KernelArguments* arguments, const Held* held, std::int64_t count) {
    std::int64_t before = -1;
    for (std::int64_t h = 0; h < count; ++h) {
        const std::int64_t image = held->image[h], anchor = held->anchor[h], row = held->row[h];
        if (image < 0 || image >= arguments->images || anchor < 0 || anchor >= arguments->anchors || row < 0 || row >= arguments->rows) return h;
        if (arguments->label[row] < 0 || arguments->label[row] >= arguments->classes) return h;
        const std::int64_t cell = image * arguments->anchors + anchor;
        if (cell <= before) return h;
        before = cell;
    }
    return -1;
}

std::int64_t twinloss_scratch_of_assignment(const KernelArguments* arguments) { return scratch_of_assignment<Upright>(*arguments); }

std::int64_t twinloss_scratch_of_terms(const KernelArguments* arguments, std::int64_t held) { return scratch_of_terms<Upright>(*arguments, held); }

std::int64_t twinloss_assign(const KernelArguments* arguments, std::int32_t storage, void* memory, Held* held) {
    return assign<Upright>(*arguments, storage, memory, *held);
}

// Terms in the order box, classification, distribution.
void twinloss_terms(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held, std::int64_t count, float* terms,
                    const Gradients* gradients) {
    write_terms<Upright>(*arguments, storage, memory, *held, count, terms, *gradients);
}
}
#pragma GCC visibility pop
