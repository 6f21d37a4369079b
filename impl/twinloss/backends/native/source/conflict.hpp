// Each box's best anchors (spec section 5.4), and each anchor's best box (spec section 5.5).
#pragma once

#include "lanes.hpp"
#include "arguments.hpp"

namespace twinloss {

constexpr std::uint32_t NOBODY = 0xffffffff;

// Bits of a float that is not negative, in the order of the values; NaN, of either sign, comes above all: it has to show in the loss.
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

// The K picks of largest metric so far, in descending order, the lower anchor first among equals. Anchors come in ascending order.
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

// The largest overlap at an anchor and the lowest box that has it, in one word whose maximum does not depend on the order of arrival.
class Contest {
   public:
    Contest(const KernelArguments& arguments, Scratch& scratch) : best_(scratch.take<std::uint64_t>(arguments.images * arguments.anchors)) {}

    void clear(std::int64_t from, std::int64_t count) { std::memset(best_ + from, 0, static_cast<std::size_t>(count) * sizeof *best_); }

    // An overlap of 0 wins nothing: where all are 0 the anchor goes to box 0 of the image with weight 0 (spec section 9), so to none.
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
