// The likelihood of the held anchors' visible keypoints, but for the model's flow, forward and backward (pose spec sections 6 and 8).
//
// The flow runs on torch, between the two passes here. It is given the latents of the pairs (held anchor, keypoint) that count, side by
// side; with n = 3 keypoints, of which anchor h0 has 2 that count and h1 has 1:
//
//     held anchor           h0        h1        h2
//     keypoint              0 1 2     0 1 2     0 1 2
//     counts                x . x     . . .     . x .
//     pair                  0   1                 2         latents (3, 2), weights (3,)
//     first_pair            0         2         2       3   of each held anchor, and their number
//
// The backward pass is given the flow's gradient by the latents, and computes anew what the columns of raw predictions tell.
#pragma once

#include "keypoint_terms.hpp"

namespace twinloss {

// One coordinate of a pair.
struct Residual {
    static constexpr double EPS = 1e-9, LOG_2 = 0.693147180559945309;
    static constexpr double MOST = 100;  // |latent| that the flow is given

    double share, deviation, logarithm, latent;  // sigmoid of the raw deviation, the same at least τ, its log, (predicted − true) / deviation

    Residual(double off, double share, double deviation, double logarithm)
        : share(share), deviation(deviation), logarithm(logarithm), latent(off / (deviation + EPS)) {}

    bool infinite() const { return std::isinf(latent); }
    bool clamped() const { return std::fabs(latent) > MOST; }  // a NaN is not, so that the gradients show it
    double seen_by_flow() const { return latent > MOST ? MOST : latent < -MOST ? -MOST : latent; }
    double sign() const { return latent > 0 ? 1 : latent < 0 ? -1 : 0; }
    double loss() const { return 2 * logarithm + LOG_2 + std::fabs(seen_by_flow()); }

    // Derivatives by the predicted position and by the raw deviation, from those of the whole by `loss()` and by the latent through the flow.
    double by_position(double by_loss, double by_latent) const { return clamped() ? 0 : (by_loss * sign() + by_latent) / (deviation + EPS); }
    double by_raw(const KernelArguments& arguments, double by_loss, double by_latent) const {
        return share < arguments.sigma_floor ? 0 : (2 * by_loss - by_position(by_loss, by_latent) * latent * share) * (1 - share);
    }
};

// Columns of one held anchor, and its target.
struct HeldKeypoints {
    const KernelArguments& arguments;
    const KeypointPlace place;
    const float *column, *raw_deviations;

    // Calls `visit` with the index and the two residuals of every keypoint that counts.
    template <class Visit>
    void each(Visit visit) const {
        for (std::int64_t first = 0; first < 2 * arguments.points; first += WIDE) {  // a register of raw deviations at a time
            const int some = static_cast<int>(std::min<std::int64_t>(2 * arguments.points - first, WIDE));
            Wide raw{};
            for (int i = 0; i < some; ++i) raw[i] = raw_deviations[first + i];
            const Wide e = exp_of_negative(-magnitude(raw)), share = choose<Wide>(raw < 0.0, e, splat<Wide>(1.0)) / (1.0 + e);
            const Wide deviation = larger(share, splat<Wide>(arguments.sigma_floor)), logarithm = log_of(deviation);
            for (int i = 0; i < some; i += 2) {
                const std::int64_t k = (first + i) / 2;
                if (!visible_keypoint(arguments, place.row, k)) continue;
                const float* predicted = column + k * arguments.point_numbers;
                const Residual x(place.off(k, 0, predicted[0]), share[i], deviation[i], logarithm[i]);
                const Residual y(place.off(k, 1, predicted[1]), share[i + 1], deviation[i + 1], logarithm[i + 1]);
                if (!x.infinite() && !y.infinite()) visit(k, x, y);
            }
        }
    }
};

// What the forward pass gives the flow, and keeps for the backward pass; P pairs, of at most H · n.
struct Latents {
    float* raw_deviations;     // (H, 2n)
    std::int64_t* first_pair;  // (H + 1,)
    float* latents;            // (P, 2)
    double* weights;           // (P,) ω divided by the number of pairs
};

// Writes the latents, closed up, and returns the part of the likelihood that needs no flow.
template <class T>
double keypoint_likelihood(const KernelArguments& arguments, const Held& held, std::int64_t count, KeypointScratch& scratch, const float* columns,
                           const Latents& to) {
    scratch.anchors.fill(arguments);
    scratch.find_first(arguments, held, count);
    const std::int64_t channels = arguments.points * arguments.point_numbers, most = arguments.points;
#pragma omp parallel for schedule(dynamic) num_threads(arguments.threads)
    for (std::int64_t image = 0; image < arguments.images; ++image) {
        const T* row = static_cast<const T*>(arguments.sigmas) + image * arguments.sigmas_per_image;
        gather_columns(row, arguments.sigmas_per_channel, 2 * most, held, scratch.first[image], scratch.first[image + 1], to.raw_deviations);
        for (std::int64_t h = scratch.first[image]; h < scratch.first[image + 1]; ++h) {
            const KeypointPlace place(arguments, scratch.anchors, held.anchor[h], held.row[h]);
            std::int64_t pair = h * most;
            scratch.sums[h].likelihood = 0;
            HeldKeypoints{arguments, place, columns + h * channels, to.raw_deviations + h * 2 * most}.each(
                [&](std::int64_t k, const Residual& x, const Residual& y) {
                    to.latents[2 * pair] = static_cast<float>(x.seen_by_flow()), to.latents[2 * pair + 1] = static_cast<float>(y.seen_by_flow());
                    scratch.sums[h].likelihood += arguments.point_weights[k] * (x.loss() + y.loss());
                    to.weights[pair++] = arguments.point_weights[k];
                });
            to.first_pair[h] = pair - h * most;
        }
    }
    std::int64_t pairs = 0;
    double sum = 0;
    for (std::int64_t h = 0; h < count; ++h) {
        const std::int64_t own = to.first_pair[h];
        std::copy_n(to.latents + 2 * h * most, 2 * own, to.latents + 2 * pairs), std::copy_n(to.weights + h * most, own, to.weights + pairs);
        to.first_pair[h] = pairs, pairs += own, sum += scratch.sums[h].likelihood;
    }
    to.first_pair[count] = pairs;
    for (std::int64_t pair = 0; pair < pairs; ++pair) to.weights[pair] /= static_cast<double>(pairs);
    return pairs ? sum / static_cast<double>(pairs) : 0;
}

// Writes the gradients by the columns (H, n · E), and by the raw deviations, dense (B, 2n, A), contiguous; `by_latents` (P, 2) is the flow's, or
// null. Either output may be null. `slopes` (H, 2n) is scratch memory.
template <class T>
void keypoint_likelihood_gradient(const KernelArguments& arguments, const Held& held, std::int64_t count, KeypointScratch& scratch,
                                  const float* columns, const Latents& from, double factor, const float* by_latents, float* slopes,
                                  float* by_columns, T* by_raw) {
    scratch.anchors.fill(arguments);
    scratch.find_first(arguments, held, count);
    const std::int64_t channels = arguments.points * arguments.point_numbers, most = arguments.points;
    const double pairs = static_cast<double>(from.first_pair[count]);
    std::fill_n(slopes, count * 2 * most, 0.0f);
    if (by_columns) std::fill_n(by_columns, count * channels, 0.0f);
#pragma omp parallel for schedule(static) num_threads(arguments.threads)
    for (std::int64_t h = 0; h < count; ++h) {
        const KeypointPlace place(arguments, scratch.anchors, held.anchor[h], held.row[h]);
        std::int64_t pair = from.first_pair[h];
        HeldKeypoints{arguments, place, columns + h * channels, from.raw_deviations + h * 2 * most}.each([&](std::int64_t k, const Residual& x, const Residual& y) {
            const double by_loss = factor * arguments.point_weights[k] / pairs;
            const Residual* residual[2] = {&x, &y};
            for (int c = 0; c < 2; ++c) {
                const double by_latent = by_latents ? by_latents[2 * pair + c] : 0;
                if (by_columns)
                    by_columns[h * channels + k * arguments.point_numbers + c] =
                        static_cast<float>(residual[c]->by_position(by_loss, by_latent) * arguments.point_factor);
                slopes[h * 2 * most + 2 * k + c] = static_cast<float>(residual[c]->by_raw(arguments, by_loss, by_latent));
            }
            ++pair;
        });
    }
    if (by_raw)
        scatter_columns(arguments, held, scratch.first, 2 * most, by_raw,
                        [&](std::int64_t h, std::int64_t channel) { return slopes[h * 2 * most + channel]; });
}

}  // namespace twinloss
