// Each box's best anchors (spec section 5.4), and each anchor's best box (spec section 5.5).
//
// Example. K = 2; box 0 is a candidate at anchors 5, 6, 7 with metrics 0.3, 0.1, 0.3, box 1 at anchors 7, 8 with 0.2, 0.4.
// `Picks` holds, in descending order and with the lower anchor first among equals:
//     box 0: (0.3, anchor 5), (0.3, anchor 7)        box 1: (0.4, anchor 8), (0.2, anchor 7)
// Both picked anchor 7. `Contest` holds one 64-bit word per anchor, whose maximum both boxes have entered in either order:
//     [ bits of the overlap | 0xffffffff − box ]      box 0 with overlap 0.5: [0x3f000000 | 0xffffffff]
//                                                     box 1 with overlap 0.7: [0x3f333333 | 0xfffffffe]  ← larger: box 1 wins
// Bits of positive floats have the order of their values, and on equal overlaps the larger low half belongs to the lower box.
#pragma once

#include "lanes.hpp"
#include "arguments.hpp"

namespace twinloss {

// Holder of an anchor that no box holds: above every index of a box, so that NOBODY − box is positive and falls as the box rises.
constexpr std::uint32_t NOBODY = 0xffffffff;

// Bits of a float >= 0, which have the order of the values. NaN of either sign is above all, so that it reaches the loss.
inline std::uint32_t rank_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffff;
}
inline float value_of(std::uint32_t rank) {
    float x;
    std::memcpy(&x, &rank, sizeof x);
    return x;
}

struct Pick {
    std::uint32_t metric;  // its rank
    std::uint32_t anchor;
    float overlap;
};

// The K picks of largest metric so far, in descending order. Callers offer anchors in ascending order: among equals the lower is first.
class Picks {
   public:
    Picks(Pick* places, std::int64_t most) : places_(places), most_(most) {}

    void offer(const Pick& pick) {
        if (pick.metric == 0 || (count_ == most_ && pick.metric <= places_[most_ - 1].metric)) return;
        std::int64_t place = count_ < most_ ? count_++ : most_ - 1;
        for (; place > 0 && places_[place - 1].metric < pick.metric; --place) places_[place] = places_[place - 1];
        places_[place] = pick;
    }
    std::int64_t count() const { return count_; }

   private:
    Pick* places_;
    std::int64_t most_, count_ = 0;
};

// Per anchor, the largest overlap and the lowest box that has it, in one word; the maximum does not depend on the order of threads.
class Contest {
   public:
    Contest(const KernelArguments& arguments, Scratch& scratch) : best_(scratch.take<std::uint64_t>(arguments.images * arguments.anchors)) {}

    void clear(std::int64_t from, std::int64_t count) { std::memset(best_ + from, 0, static_cast<std::size_t>(count) * sizeof *best_); }

    // An overlap of 0 is ignored: if all are 0, the anchor goes to box 0 of the image with weight 0 (spec section 9), which no sum counts.
    void enter(std::int64_t cell, float overlap, std::uint32_t box) {
        if (rank_of(overlap) == 0) return;
        const std::uint64_t claim = static_cast<std::uint64_t>(rank_of(overlap)) << 32 | (NOBODY - box);
        std::uint64_t best = __atomic_load_n(best_ + cell, __ATOMIC_RELAXED);
        while (claim > best && !__atomic_compare_exchange_n(best_ + cell, &best, claim, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    }
    std::uint32_t winner(std::int64_t cell) const { return best_[cell] ? NOBODY - static_cast<std::uint32_t>(best_[cell]) : NOBODY; }
    float overlap(std::int64_t cell) const { return value_of(static_cast<std::uint32_t>(best_[cell] >> 32)); }

   private:
    std::uint64_t* best_;
};

}  // namespace twinloss
