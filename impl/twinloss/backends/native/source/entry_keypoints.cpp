// The functions that `library.py` calls for keypoints: to assign by them, and their own terms. Those of the boxes are upright ones'.
#include "entry.hpp"
#include "keypoint_likelihood.hpp"
#include "keypoints.hpp"

using namespace twinloss;

#pragma GCC visibility push(default)
extern "C" {

std::int64_t twinloss_keypoints_scratch_of_assignment(const KernelArguments* arguments) { return scratch_of_assignment<Keypoints>(*arguments); }

std::int64_t twinloss_keypoints_assign(const KernelArguments* arguments, std::int32_t storage, void* memory, Held* held) {
    return assign<Keypoints>(*arguments, storage, memory, *held);
}

std::int64_t twinloss_keypoints_scratch_of_terms(const KernelArguments* arguments, std::int64_t held) {
    Scratch scratch(nullptr);
    KeypointScratch terms(*arguments, held, scratch);
    return scratch.used();
}

// Writes the location and the visibility term, without gains, the held anchors' columns of predictions, and the slopes of both by them.
void twinloss_keypoints_terms(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held, std::int64_t count,
                              float* terms, float* columns, float* slopes) {
    Scratch scratch(memory);
    KeypointScratch terms_scratch(*arguments, count, scratch);
    const KeypointSums sums = with_storage(storage, [&](auto type) {
        return keypoint_terms<Stored<decltype(type)>>(*arguments, *held, count, terms_scratch, columns, slopes);
    });
    terms[0] = static_cast<float>(sums.location), terms[1] = static_cast<float>(sums.visibility);
}

void twinloss_keypoints_gradient(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held, std::int64_t count,
                                 float location, float visibility, const float* slopes, const float* further, void* gradient) {
    Scratch scratch(memory);
    KeypointScratch terms_scratch(*arguments, count, scratch);
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        keypoints_gradient<T>(*arguments, *held, count, terms_scratch, location, visibility, slopes, further, static_cast<T*>(gradient));
    });
}

// Writes what the flow is given (`Latents`), and the likelihood without it; `columns` are those that the terms gathered. Returns the number of pairs.
std::int64_t twinloss_keypoints_likelihood(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held, std::int64_t count,
                                           const float* columns, float* raw_deviations, std::int64_t* first_pair, float* latents, double* weights,
                                           double* without_flow) {
    Scratch scratch(memory);
    KeypointScratch terms_scratch(*arguments, count, scratch);
    *without_flow = with_storage(storage, [&](auto type) {
        return keypoint_likelihood<Stored<decltype(type)>>(*arguments, *held, count, terms_scratch, columns,
                                                           {raw_deviations, first_pair, latents, weights});
    });
    return first_pair[count];
}

void twinloss_keypoints_likelihood_gradient(const KernelArguments* arguments, std::int32_t storage, void* memory, const Held* held,
                                            std::int64_t count, const float* columns, float* raw_deviations, std::int64_t* first_pair,
                                            double factor, const float* by_latents, float* slopes, float* by_columns, void* by_raw) {
    Scratch scratch(memory);
    KeypointScratch terms_scratch(*arguments, count, scratch);
    with_storage(storage, [&](auto type) {
        using T = Stored<decltype(type)>;
        keypoint_likelihood_gradient<T>(*arguments, *held, count, terms_scratch, columns, {raw_deviations, first_pair, nullptr, nullptr}, factor,
                                        by_latents, slopes, by_columns, static_cast<T*>(by_raw));
    });
}
}
#pragma GCC visibility pop
