// Loads and stores vectors of logits: float32, float16 or bfloat16 in memory, float32 in registers.
#pragma once

#include <algorithm>

#include "functions.hpp"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace twinloss {

struct BFloat16 {
    std::uint16_t bits;
};

// Whether the processor converts float16, and the compiler has a type for it: GCC before 13 has none on ARM.
#if defined(__F16C__) || (defined(__aarch64__) && (defined(__clang__) || __GNUC__ >= 13))
#define TWINLOSS_CONVERTS_FLOAT16
#endif

#ifdef TWINLOSS_CONVERTS_FLOAT16
using Float16 = _Float16;

inline float widen(Float16 x) { return static_cast<float>(x); }
#else
// As the instructions of other processors convert it, NaN included.
struct Float16 {
    std::uint16_t bits;
};

inline Lanes widened(Bits<Lanes> bits) {
    const Bits<Lanes> magnitude = bits & 0x7fff, sign = (bits & 0x8000) << 16;
    const Bits<Lanes> tiny = bits_of(__builtin_convertvector(magnitude, Lanes) * 0x1p-24f), normal = (magnitude << 13) + (112 << 23);
    const Bits<Lanes> no_number = (magnitude << 13) | 0x7f800000, quiet = (magnitude > 0x7c00) & 0x400000;
    const Bits<Lanes> is_tiny = magnitude < 0x400, is_no_number = magnitude >= 0x7c00;
    return from_bits(sign | (is_tiny & tiny) | (is_no_number & (no_number | quiet)) | (~is_tiny & ~is_no_number & normal));
}
// To nearest, ties to even.
inline Bits<Lanes> narrowed(Lanes x) {
    const Bits<Lanes> bits = bits_of(x) & 0x7fffffff, sign = bits_of(x) >> 16 & 0x8000;
    const Bits<Lanes> tiny = bits_of(from_bits(bits) + 0.5f) - 0x3f000000;  // the sum is rounded to 2^−24
    const Bits<Lanes> normal = (bits + 0xfff + (bits >> 13 & 1) - (112 << 23)) >> 13;
    const Bits<Lanes> is_tiny = bits < 113 << 23, is_infinite = bits >= 0x477ff000, is_nan = bits > 0x7f800000;
    const Bits<Lanes> of_infinite = (Bits<Lanes>{} + 0x7c00) | (is_nan & (0x200 | (bits >> 13 & 0x3ff)));
    return sign | (is_tiny & tiny) | (is_infinite & of_infinite) | (~is_tiny & ~is_infinite & normal);
}

inline float widen(Float16 x) { return widened(Bits<Lanes>{} + static_cast<std::int32_t>(x.bits))[0]; }
#endif

inline float widen(float x) { return x; }
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

#ifndef TWINLOSS_CONVERTS_FLOAT16
template <>
inline Float16 narrow<Float16>(float x) {
    return {static_cast<std::uint16_t>(narrowed(splat(x))[0])};
}
#endif

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

#if defined(__AVX512F__)
template <>
inline Lanes load<Float16>(const Float16* from) {
    return reinterpret_cast<Lanes>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
#elif defined(__F16C__)
template <>
inline Lanes load<Float16>(const Float16* from) {
    return reinterpret_cast<Lanes>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
#elif !defined(TWINLOSS_CONVERTS_FLOAT16)
template <>
inline Lanes load<Float16>(const Float16* from) {
    std::uint16_t __attribute__((vector_size(LANES * 2))) x;
    std::memcpy(&x, from, sizeof x);
    return widened(__builtin_convertvector(x, Bits<Lanes>));
}
#endif

template <class T>
void store(T* to, Lanes x) {
    for (int lane = 0; lane < LANES; ++lane) to[lane] = narrow<T>(x[lane]);
}
template <>
inline void store<float>(float* to, Lanes x) {
    std::memcpy(to, &x, sizeof x);
}

template <>
inline void store<BFloat16>(BFloat16* to, Lanes x) {
    const Bits<Lanes> bits = bits_of(x), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = Bits<Lanes>{} + 0x7fc0;
    const auto narrowed = __builtin_convertvector(x != x ? nan : rounded, std::uint16_t __attribute__((vector_size(LANES * 2))));
    std::memcpy(to, &narrowed, sizeof narrowed);
}

#if defined(__AVX512F__)
template <>
inline void store<Float16>(Float16* to, Lanes x) {
    const __m256i bits = _mm512_cvtps_ph(reinterpret_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    std::memcpy(to, &bits, sizeof bits);
}
#elif defined(__F16C__)
template <>
inline void store<Float16>(Float16* to, Lanes x) {
    const __m128i bits = _mm256_cvtps_ph(reinterpret_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(to, &bits, sizeof bits);
}
#elif !defined(TWINLOSS_CONVERTS_FLOAT16)
template <>
inline void store<Float16>(Float16* to, Lanes x) {
    const auto bits = __builtin_convertvector(narrowed(x), std::uint16_t __attribute__((vector_size(LANES * 2))));
    std::memcpy(to, &bits, sizeof bits);
}
#endif

// Asks for numbers that will be loaded soon: the processor does so by itself only within a page, and not far enough ahead of much arithmetic.
template <class T>
void fetch(const T* from) {
    __builtin_prefetch(from);
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
