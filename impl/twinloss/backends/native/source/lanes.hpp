// Vectors that fill one register of the processor, of float (`Lanes`) or double (`Wide`), and their operations.
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
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int WIDE = LANES / 2;

// A sum over a row is SUMMED sums side by side, in PARTS registers: which numbers are added, and in what order, is the same on every
// processor, and so is every bit. Number i of a row belongs to sum i mod SUMMED.
constexpr int SUMMED = 16;
constexpr int PARTS = SUMMED / LANES;

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
    return mask ? yes : no;
}
template <class V>
V magnitude(V x) {
    return choose<V>(x < 0, -x, x);
}
// −|x|: the sign bit is set.
inline Lanes negative_magnitude(Lanes x) { return from_bits(bits_of(x) | INT32_MIN); }

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

constexpr int SIDES = 4;  // left, top, right, bottom

struct SideLanes {
    Wide of[SIDES];

    Wide& operator[](int side) { return of[side]; }
    const Wide& operator[](int side) const { return of[side]; }
};

}  // namespace twinloss
