// The functions that `library.py` calls to assign by keypoints; the terms of the boxes are those of upright ones.
#include "entry.hpp"
#include "keypoints.hpp"

using namespace twinloss;

extern "C" {

std::int64_t twinloss_keypoints_scratch_of_assignment(const KernelArguments* arguments) { return scratch_of_assignment<Keypoints>(*arguments); }

std::int64_t twinloss_keypoints_assign(const KernelArguments* arguments, std::int32_t storage, void* memory, Held* held) {
    return assign<Keypoints>(*arguments, storage, memory, *held);
}
}
