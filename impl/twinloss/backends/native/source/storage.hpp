// Loads and stores vectors of logits: float32, float16 or bfloat16 in memory, float32 in registers.
#pragma once

#include <algorithm>

#include "lanes.hpp"

namespace twinloss {

struct BFloat16 {
    std::uint16_t bits;
};
using Float16 = _Float16;

inline float widen(float x) { return x; }
inline float widen(Float16 x) { return static_cast<float>(x); }
inline float widen(BFloat16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
T narrow(float x) {
    return static_cast<T>(x);
}
template <>
inline BFloat16 narrow<BFloat16>(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return {0x7fc0};
    return {static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};  // to nearest, ties to even
}

template <class T>
Lanes load(const T* from) {
    Lanes x;
    for (int lane = 0; lane < LANES; ++lane) x[lane] = widen(from[lane]);
    return x;
}
template <>
inline Lanes load<float>(const float* from) {
    Lanes x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
template <>
inline Lanes load<BFloat16>(const BFloat16* from) {
    std::uint16_t __attribute__((vector_size(LANES * 2))) x;
    std::memcpy(&x, from, sizeof x);
    return from_bits(__builtin_convertvector(x, Bits<Lanes>) << 16);
}

template <class T>
void store(T* to, Lanes x) {
    for (int lane = 0; lane < LANES; ++lane) to[lane] = narrow<T>(x[lane]);
}
template <>
inline void store<float>(float* to, Lanes x) {
    std::memcpy(to, &x, sizeof x);
}

// Loads the first `count` lanes of a vector; the others are `missing`.
template <class T>
Lanes load_some(const T* from, std::int64_t count, float missing) {
    if (count >= LANES) return load(from);
    Lanes x = splat(missing);
    for (int lane = 0; lane < count; ++lane) x[lane] = widen(from[lane]);
    return x;
}
template <class T>
void store_some(T* to, Lanes x, std::int64_t count) {
    if (count >= LANES) return store(to, x);
    for (int lane = 0; lane < count; ++lane) to[lane] = narrow<T>(x[lane]);
}

}  // namespace twinloss
