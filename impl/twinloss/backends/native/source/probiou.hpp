// ProbIoU of a pair of oriented boxes, taken for Gaussians, and its gradient (oriented spec section 6).
//
// With the deviations a = √(w²/12 + f) and b = √(h²/12 + f) along a box's sides, θ the angle between the boxes, and (ξᵢ, ηᵢ) the offset of
// their centres along the sides of box i, nothing cancels in
//
//     N = b₁²ξ₁² + a₁²η₁² + b₂²ξ₂² + a₂²η₂²
//     X = (a₁b₁ − a₂b₂)² + (a₁b₂ − b₁a₂)² cos²θ + (a₁a₂ − b₁b₂)² sin²θ
//     G = a₁b₁a₂b₂    E = 4G + X, the determinant of the sum of the covariances
//     β = N / 4(E + ε) + ½ ln(E / (4G + ε) + ε)        ProbIoU = 1 − √(1 − e^(−β) + ε)
#pragma once

#include "angles.hpp"

namespace twinloss {

inline Lanes log_of_one_beside(Lanes x) { return log_of_one_and(x); }
inline Wide log_of_one_beside(Wide x) { return log_of(1.0 + x); }

// Box 1 beside box 2: the offset of its centre in the frame of box 2, and sine and cosine of its angle there, up to a common sign.
template <class V>
struct Gaussians {
    V a1, b1, a2, b2, xi, eta;
    SineCosine<V> turn;
};

template <class V>
struct Bhattacharyya {
    V xi1, eta1, n, x, g4, beta;  // beta is not clamped

    Bhattacharyya(const Gaussians<V>& g, float eps) {
        const auto square = [](V v) { return v * v; };
        const V sin = g.turn.sin, cos = g.turn.cos;
        xi1 = g.xi * cos + g.eta * sin, eta1 = g.eta * cos - g.xi * sin;
        n = square(g.b1 * xi1) + square(g.a1 * eta1) + square(g.b2 * g.xi) + square(g.a2 * g.eta);
        x = square(g.a1 * g.b1 - g.a2 * g.b2) + square((g.a1 * g.b2 - g.b1 * g.a2) * cos) + square((g.a1 * g.a2 - g.b1 * g.b2) * sin);
        g4 = 4 * (g.a1 * g.b1) * (g.a2 * g.b2);
        const V below = g4 + eps;
        beta = n / (4 * (g4 + x + eps)) + log_of_one_beside((x + eps * (below - 1)) / below) * Number<V>(0.5);
    }

    V clamped(float eps) const { return smaller(larger(beta, splat<V>(eps)), splat<V>(100)); }
    V loss(float eps) const { return square_root(one_less_exp(-clamped(eps)) + eps); }
};

// Gradient of the loss, 1 − ProbIoU: by the centre of box 1 in the frame of box 2, by its sides, and by its angle alone.
struct ProbIoUGradient {
    Wide xi, eta, width, height, angle;

    ProbIoUGradient(const Gaussians<Wide>& g, const Bhattacharyya<Wide>& d, Wide w1, Wide h1, Wide w2, Wide h2, float eps) {
        const Wide u1 = g.a1 * g.a1, v1 = g.b1 * g.b1, u2 = g.a2 * g.a2, v2 = g.b2 * g.b2;
        const Wide sin2 = g.turn.sin * g.turn.sin, cos2 = g.turn.cos * g.turn.cos, below = d.g4 + eps, det = d.g4 + d.x;
        const auto difference = [](Wide side, Wide other) { return (side - other) * (side + other) * (1.0 / 12); };  // of two variances
        const Wide flows = choose<Wide>((d.beta < eps) | (d.beta > 100.0), Wide{}, exp_of_negative(-d.beta) / (2.0 * d.loss(eps)));
        const Wide by_n = 0.25 / (det + eps) * flows, by_log = 0.5 / (det + eps * below) * flows, by_det = -by_n * d.n / (det + eps);

        xi = (v1 * d.xi1 * g.turn.cos - u1 * d.eta1 * g.turn.sin + v2 * g.xi) * (2.0 * by_n);
        eta = (v1 * d.xi1 * g.turn.sin + u1 * d.eta1 * g.turn.cos + u2 * g.eta) * (2.0 * by_n);

        const Wide turned = sin2 * (u1 + v1) * difference(w2, h2), of_g = eps / below * det;
        const Wide by_u = d.eta1 * d.eta1 * by_n + (v1 + v2 * cos2 + u2 * sin2) * by_det;
        const Wide by_v = d.xi1 * d.xi1 * by_n + (u1 + u2 * cos2 + v2 * sin2) * by_det;
        const Wide by_log_u = (difference(w1, w2) * (v1 + v2) + turned + of_g) * by_log;
        const Wide by_log_v = (difference(h1, h2) * (u1 + u2) - turned + of_g) * by_log;
        const Wide least = splat<Wide>(1e-300);
        width = (by_u + 0.5 * by_log_u / larger(u1, least)) * w1 * (1.0 / 6);
        height = (by_v + 0.5 * by_log_v / larger(v1, least)) * h1 * (1.0 / 6);

        const Wide longer = difference(w1, h1);
        angle = -2.0 * longer * d.xi1 * d.eta1 * by_n + 2.0 * g.turn.sin * g.turn.cos * longer * difference(w2, h2) * (by_det + by_log);
    }
};

}  // namespace twinloss
