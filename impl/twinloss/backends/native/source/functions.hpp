// Exponential, logarithm and arctangent of vectors, in float and in double, by IEEE operations alone: what a system's own functions return
// differs from system to system in the last bits. Sine and cosine are in `angles.hpp`.
#pragma once

#include "lanes.hpp"

namespace twinloss {

// e^y for y <= 0, within one ulp; 0 instead of a subnormal result, NaN for NaN. Polynomial of Cephes' expf.
inline Lanes exp_of_negative(Lanes y) {
    constexpr float LEAST = -87.3f, INTEGER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Lanes shifted = y * 1.44269504088896341f + INTEGER;
    const Lanes power = shifted - INTEGER;
    const Lanes r = (y - power * 0.693359375f) - power * -2.12194440e-4f;
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
    const Wide shifted = y * 1.4426950408889634 + INTEGER;
    const Wide power = shifted - INTEGER;
    const Wide r = (y - power * 6.93145751953125e-1) - power * 1.42860682030941723212e-6;
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

// log u in double, within an ulp for normal u > 0; −∞ for 0, NaN for a negative number. With u = 2^k (1 + f) and s = f / (2 + f),
// log (1 + f) = 2 artanh s, by its series, arranged so that the leading f is not rounded.
inline Wide log_of(Wide u) {
    constexpr std::int64_t ROOT_OF_HALF = 0x3fe6a09e667f3bcd;
    constexpr double LOG_2_HIGH = 6.93147180369123816490e-01, LOG_2_LOW = 1.90821492927058770002e-10;  // the first times any exponent is exact
    const Bits<Wide> power = (bits_of(u) - ROOT_OF_HALF) >> 52;
    const Wide f = from_bits(bits_of(u) - (power << 52)) - 1.0, s = f / (2.0 + f), z = s * s;
    const Wide k = __builtin_convertvector(power, Wide), half_square = 0.5 * f * f;
    Wide series{};
    for (int odd = 23; odd > 1; odd -= 2) series = (series + 2.0 / odd) * z;
    const Wide found = k * LOG_2_HIGH - ((half_square - (s * (half_square + series) + k * LOG_2_LOW)) - f);
    const Wide of_others = choose<Wide>(u == 0.0, splat<Wide>(-INFINITY), choose<Wide>(u < 0.0, splat<Wide>(NAN), u));  // infinity and NaN
    return choose<Wide>((u > 0.0) & (u < INFINITY), found, of_others);
}

// log(1 + x) for x >= 0, NaN for NaN: the logarithm of the rounded sum, corrected by the rounding error of the sum.
template <class V>
V log_of_one_and(V x) {
    const V u = 1 + x;
    return log_of(u) + (x - (u - 1)) / u + 0 * x;
}

// 1 − e^y for y <= 0, with the digits of a small y.
template <class V>
V one_less_exp(V y) {
    constexpr int TERMS = sizeof(Number<V>) == 4 ? 8 : 14;
    V series = splat<V>(1);
    for (int term = TERMS; term > 1; --term) series = 1 + series * y * (1 / static_cast<Number<V>>(term));
    return choose<V>(y > static_cast<Number<V>>(-0.35), -y * series, 1 - exp_of_negative(y));
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
// In double, within two ulps. Quotient of polynomials of Cephes' atan.
inline Wide angle_of(Wide x) {
    constexpr double QUARTER = 0.78539816339744830962, QUARTER_REST = 3.061616997868382943065e-17;  // of π, and what its rounding leaves
    const Wide t = magnitude(x);
    const Bits<Wide> steep = t > 2.41421356237309504880, middling = ~steep & (t > 0.66);
    const Wide quarters = choose(steep, splat<Wide>(2.0), choose(middling, splat<Wide>(1.0), Wide{}));
    const Wide r = choose(steep, -1.0 / t, choose(middling, (t - 1.0) / (t + 1.0), t)), z = r * r;
    Wide p = splat<Wide>(-8.750608600031904122785e-1);
    p = p * z - 1.615753718733365076637e1;
    p = p * z - 7.500855792314704667340e1;
    p = p * z - 1.228866684490136173410e2;
    p = p * z - 6.485021904942025371773e1;
    Wide q = z + 2.485846490142306297962e1;
    q = q * z + 1.650270098316988542046e2;
    q = q * z + 4.328810604912902668951e2;
    q = q * z + 4.853903996359136964868e2;
    q = q * z + 1.945506571482613964425e2;
    const Wide angle = quarters * QUARTER + ((z * p / q * r + r) + quarters * QUARTER_REST);
    return choose<Wide>(x < 0.0, -angle, angle);
}


}  // namespace twinloss
