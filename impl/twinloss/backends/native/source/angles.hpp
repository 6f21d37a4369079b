// Sine and cosine of a register full of angles.
#pragma once

#include "functions.hpp"

namespace twinloss {

template <class V>
struct SineCosine {
    V sin, cos;
};

// The angle in [−π, π] that points in the same direction as a float beyond 1; NaN for an infinite one.
//
// A float is m · 2^e with a whole m below 2^24, and m · 2^e / 2π turns are needed modulo 1: bits of 1 / 2π before the e-th place after its
// point give whole turns, and the 128 bits from there on hold the fraction with 100 bits or more.
inline double principal(float angle) {
    constexpr std::uint64_t INVERSE_OF_TURN[] = {0x28be60db9391054a, 0x7f09d5f47d4d3770, 0x36d8a5664f10e410, 0x7f9458eaf7aef158};
    constexpr double TURN = 6.28318530717958647693, TWO_TO_64 = 18446744073709551616.0;
    using Long = unsigned __int128;
    std::uint32_t bits;
    std::memcpy(&bits, &angle, sizeof bits);
    const int e = static_cast<int>(bits >> 23 & 0xff) - 150;
    if (e > 104) return NAN;
    const std::uint32_t m = (bits & 0x7fffff) | 0x800000;
    const int word = e > 0 ? e / 64 : 0, shift = e > 0 ? e % 64 : 0;
    Long window = static_cast<Long>(INVERSE_OF_TURN[word]) << 64 | INVERSE_OF_TURN[word + 1];
    if (shift) window = window << shift | INVERSE_OF_TURN[word + 2] >> (64 - shift);
    if (e < 0) window >>= -e;
    const auto fraction = static_cast<std::int64_t>(static_cast<std::uint64_t>(window * m >> 64));  // from −1/2 to 1/2, in units of 2^−64
    const double found = static_cast<double>(fraction) / TWO_TO_64 * TURN;
    return angle < 0 ? -found : found;
}

// The same of those lanes whose angle, a float, is so large that differences of it would lose digits.
template <class V>
V principal(V angle) {
    const Bits<V> large = magnitude(angle) > Number<V>(8);
    for (int lane = 0; lane < static_cast<int>(sizeof(V) / sizeof(angle[0])); ++lane)
        if (large[lane]) angle[lane] = static_cast<Number<V>>(principal(static_cast<float>(angle[lane])));
    return angle;
}

// Of r + n π/2, given those of r: n is the integer in the lowest bits.
template <class V>
SineCosine<V> of_quadrant(V sin, V cos, Bits<V> n) {
    constexpr int TO_SIGN = 8 * sizeof(Number<V>) - 2;
    const Bits<V> odd = (n & 1) != 0, sign = (n & 2) << TO_SIGN;
    const V s = choose<V>(odd, cos, sin), c = choose<V>(odd, -sin, cos);
    return {from_bits(bits_of(s) ^ sign), from_bits(bits_of(c) ^ sign)};
}

// Within an ulp or two, for |angle| up to a thousand. Polynomials of Cephes' sinf and cosf.
inline SineCosine<Lanes> sine_cosine(Lanes angle) {
    constexpr float INTEGER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Lanes shifted = angle * 0.63661977236758134f + INTEGER, n = shifted - INTEGER;
    const Lanes r = ((angle - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.54978995489188216e-8f, z = r * r;
    const Lanes sin = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    const Lanes cos = ((z * 2.443315711809948e-5f - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * (z * z) - 0.5f * z + 1.0f;
    return of_quadrant<Lanes>(sin, cos, bits_of(shifted));
}

// In double, by Taylor's series, for |angle| up to a thousand.
inline SineCosine<Wide> sine_cosine(Wide angle) {
    constexpr double INTEGER = 6755399441055744.0;  // 1.5 * 2^52
    constexpr double INVERSE_FACTORIALS[] = {1.0 / 6, 1.0 / 120, 1.0 / 5040, 1.0 / 362880, 1.0 / 39916800, 1.0 / 6227020800, 1.0 / 1307674368000};
    constexpr double OF_COSINE[] = {1.0 / 2, 1.0 / 24, 1.0 / 720, 1.0 / 40320, 1.0 / 3628800, 1.0 / 479001600, 1.0 / 87178291200};
    const Wide shifted = angle * 0.63661977236758134 + INTEGER, n = shifted - INTEGER;
    const Wide r = ((angle - n * 1.570796251296997) - n * 7.5497894158615964e-8) - n * 5.390302858158119e-15, z = r * r;
    Wide sin{}, cos{};
    for (int term = 6; term >= 0; --term) sin = (INVERSE_FACTORIALS[term] - sin) * z, cos = (OF_COSINE[term] - cos) * z;
    return of_quadrant<Wide>(r - r * sin, 1.0 - cos, bits_of(shifted));
}

}  // namespace twinloss
