// Overlaps and metrics whose logarithms are compared, because they underflow (as `log_numbers.py`).
//
// A number x from 0 to 1 is kept as 1 / (1 − log x): positive, 0 for 0, and ascending, so that it has a rank (`rank_of`) as x has.
#pragma once

#include "arguments.hpp"
#include "functions.hpp"

namespace twinloss {

template <class V>
V kept(V logarithm) {
    return 1 / (1 - logarithm);
}
template <class V>
V logarithm(V kept) {
    return 1 - 1 / kept;
}

// The geometry's answers that `PlainNumbers` has for numbers as they are.
struct LogNumbers {
    static Lanes metric(const KernelArguments& arguments, Lanes score, Lanes overlap) {
        const Lanes log_p = smaller(score, Lanes{}) - log_of_one_and(exp_of_negative(-magnitude(score)));
        Lanes sum{};
        if (arguments.alpha != 0) sum += arguments.alpha * log_p;
        if (arguments.beta != 0) sum += arguments.beta * logarithm(overlap);
        return kept(sum);
    }
    static float soft_target(const KernelArguments& arguments, float metric, float largest_metric, float largest_overlap) {
        const Wide m = logarithm(splat<Wide>(metric)), largest = logarithm(splat<Wide>(largest_metric)), eps = log_of(splat<Wide>(arguments.assign_eps));
        const Wide divisor = larger(largest, eps) + log_of_one_and(exp_of_negative(-magnitude(largest - eps)));
        return static_cast<float>(exp_of_negative(m + logarithm(splat<Wide>(largest_overlap)) - divisor)[0]);
    }
    // The weight may underflow; the keypoint terms count its anchor all the same.
    static bool holds(float metric, float) { return metric != 0; }
};

}  // namespace twinloss
