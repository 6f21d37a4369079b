// Vectors that fill one register of the processor, of float (`Lanes`) or double (`Wide`), and the functions of them that the loss needs.
//
// The compiler would split a longer vector, and compare it number by number. All functions consist of IEEE additions, products and
// quotients, which the compiler may not fuse (-ffp-contract=off): no lane's result depends on the other lanes.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace twinloss {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int WIDE = LANES / 2;

using Lanes = float __attribute__((vector_size(LANES * sizeof(float))));
using Wide = double __attribute__((vector_size(WIDE * sizeof(double))));
using Half = float __attribute__((vector_size(WIDE * sizeof(float))));  // converts to Wide

template <class V>
struct Kind;
template <>
struct Kind<Lanes> {
    using Number = float;
    using Bits = std::int32_t __attribute__((vector_size(sizeof(Lanes))));
};
template <>
struct Kind<Wide> {
    using Number = double;
    using Bits = std::int64_t __attribute__((vector_size(sizeof(Wide))));
};
template <class V>
using Number = typename Kind<V>::Number;
template <class V>
using Bits = typename Kind<V>::Bits;

template <class V = Lanes>
V splat(Number<V> value) {
    return value - V{};
}
template <class V>
Bits<V> bits_of(V x) {
    return reinterpret_cast<Bits<V>>(x);
}
inline Lanes from_bits(Bits<Lanes> x) { return reinterpret_cast<Lanes>(x); }
inline Wide from_bits(Bits<Wide> x) { return reinterpret_cast<Wide>(x); }

template <class V>
V choose(Bits<V> mask, V yes, V no) {
    return from_bits((bits_of(yes) & mask) | (bits_of(no) & ~mask));
}
template <class V>
V magnitude(V x) {
    return choose<V>(x < 0, -x, x);
}

// The larger, and the smaller, of two numbers; the first if one of them is NaN, or both are equal.
template <class V>
V larger(V a, V b) {
    return choose<V>(b > a, b, a);
}
template <class V>
V smaller(V a, V b) {
    return choose<V>(b < a, b, a);
}

inline Lanes square_root(Lanes x) {
    Lanes root;
    for (int lane = 0; lane < LANES; ++lane) root[lane] = std::sqrt(x[lane]);
    return root;
}
inline Wide square_root(Wide x) {
    for (int lane = 0; lane < WIDE; ++lane) x[lane] = std::sqrt(x[lane]);
    return x;
}

// e^y for y <= 0, within one ulp; 0 instead of a subnormal result, NaN for NaN. Polynomial of Cephes' expf.
inline Lanes exp_of_negative(Lanes y) {
    constexpr float LEAST = -87.3f, INTEGER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Lanes held = choose<Lanes>(y < LEAST, splat(LEAST), y);
    const Lanes shifted = held * 1.44269504088896341f + INTEGER;
    const Lanes power = shifted - INTEGER;
    const Lanes r = (held - power * 0.693359375f) - power * -2.12194440e-4f;
    Lanes p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Lanes scale = from_bits((bits_of(shifted) - 0x4b400000 + 127) << 23);
    return choose<Lanes>(y < LEAST, Lanes{}, p * scale);
}

// e^y for y <= 0 in double, to twelve digits, by Taylor's series.
inline Wide exp_of_negative(Wide y) {
    constexpr double LEAST = -708.0, INTEGER = 6755399441055744.0;  // 1.5 * 2^52
    const Wide held = choose<Wide>(y < LEAST, splat<Wide>(LEAST), y);
    const Wide shifted = held * 1.4426950408889634 + INTEGER;
    const Wide power = shifted - INTEGER;
    const Wide r = (held - power * 6.93145751953125e-1) - power * 1.42860682030941723212e-6;
    constexpr double INVERSE_FACTORIALS[] = {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
                                             1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2,     1.0,        1.0};
    Wide p{};
    for (const double inverse_factorial : INVERSE_FACTORIALS) p = p * r + inverse_factorial;
    const Wide scale = from_bits((bits_of(shifted) - 0x4338000000000000 + 1023) << 52);
    return choose<Wide>(y < LEAST, Wide{}, p * scale);
}

// log u for normal u > 0. Polynomial of Cephes' logf.
inline Lanes log_of(Lanes u) {
    constexpr std::int32_t ROOT_OF_HALF = 0x3f3504f3;
    const Bits<Lanes> power = (bits_of(u) - ROOT_OF_HALF) >> 23;
    const Lanes m = from_bits(bits_of(u) - (power << 23)) - 1.0f, z = m * m;
    const Lanes exponent = __builtin_convertvector(power, Lanes);
    Lanes p = splat(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z;
    p = p + exponent * -2.12194440e-4f;
    p = p - 0.5f * z;
    return m + p + exponent * 0.693359375f;
}
inline Wide log_of(Wide u) {
    for (int lane = 0; lane < WIDE; ++lane) u[lane] = std::log(u[lane]);
    return u;
}

// log(1 + x) for x >= 0, NaN for NaN: the logarithm of the rounded sum, corrected by the rounding error of the sum.
inline Lanes log_of_one_and(Lanes x) {
    const Lanes u = 1.0f + x;
    return log_of(u) + (x - (u - 1.0f)) / u + 0.0f * x;
}

// The arctangent of x, within two ulps. Polynomial of Cephes' atanf.
inline Lanes angle_of(Lanes x) {
    const Lanes t = magnitude(x);
    const Bits<Lanes> steep = t > 2.414213562373095f, middling = ~steep & (t > 0.4142135623730950f);
    const Lanes base = choose(steep, splat(1.57079632679489662f), choose(middling, splat(0.78539816339744831f), Lanes{}));
    const Lanes r = choose(steep, -1.0f / t, choose(middling, (t - 1.0f) / (t + 1.0f), t)), z = r * r;
    Lanes p = splat(8.05374449538e-2f);
    p = p * z - 1.38776856032e-1f;
    p = p * z + 1.99777106478e-1f;
    p = p * z - 3.33329491539e-1f;
    const Lanes angle = base + (p * z * r + r);
    return choose<Lanes>(x < 0, -angle, angle);
}
inline Wide angle_of(Wide x) {
    for (int lane = 0; lane < WIDE; ++lane) x[lane] = std::atan(x[lane]);
    return x;
}

constexpr int SIDES = 4;  // left, top, right, bottom

struct SideLanes {
    Wide of[SIDES];

    Wide& operator[](int side) { return of[side]; }
    const Wide& operator[](int side) const { return of[side]; }
};

}  // namespace twinloss
