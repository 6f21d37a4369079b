// Overlap, metric and soft target as they are; for overlaps that underflow there is `log_numbers.hpp`.
#pragma once

#include "arguments.hpp"
#include "functions.hpp"

namespace twinloss {

// Alignment metric p^α · o^β (spec section 5.3). For the usual exponents √p is computed from e^(−|x|/2), which does not underflow when p does.
inline Lanes alignment_metric(Lanes score, Lanes overlap, float alpha, float beta) {
    if (alpha == 0.5f && beta == 6.0f) {
        const Lanes e = exp_of_negative(magnitude(score) * -0.5f), o3 = overlap * overlap * overlap;
        return choose<Lanes>(score < 0.0f, e, splat(1.0f)) / square_root(1.0f + e * e) * (o3 * o3);
    }
    Lanes metric;
    for (int half = 0; half < LANES; half += WIDE) {
        Wide x, o, sum{};
        for (int lane = 0; lane < WIDE; ++lane) x[lane] = score[half + lane], o[lane] = overlap[half + lane];
        if (alpha != 0) sum += alpha * (smaller(x, Wide{}) - log_of_one_and(exp_of_negative(-magnitude(x))));
        if (beta != 0) sum += beta * log_of(o);
        const Wide found = exp_of_negative(sum);
        for (int lane = 0; lane < WIDE; ++lane) metric[half + lane] = static_cast<float>(found[lane]);
    }
    return metric;
}

// A geometry inherits how the numbers of its assignment are compared, and what is held.
struct PlainNumbers {
    static Lanes metric(const KernelArguments& arguments, Lanes score, Lanes overlap) {
        return alignment_metric(score, overlap, arguments.alpha, arguments.beta);
    }
    // t, given the largest metric and overlap of the box (spec section 5.7).
    static float soft_target(const KernelArguments& arguments, float metric, float largest_metric, float largest_overlap) {
        return metric * largest_overlap / (largest_metric + arguments.assign_eps);
    }
    // No sum counts an anchor of weight 0.
    static bool holds(float, float weight) { return !(weight <= 0); }
};

}  // namespace twinloss
