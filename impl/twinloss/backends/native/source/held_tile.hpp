// The columns of logits of the held anchors in one stretch of an image, read and written along the rows of channels, which lie far apart.
#pragma once

#include <algorithm>

#include "arguments.hpp"
#include "output.hpp"
#include "storage.hpp"

namespace twinloss {

// Anchors [begin, end) of an image; `count` of them are held, in the entries of the assignment from `first` on.
struct Stretch {
    static constexpr std::int64_t MOST_HELD = 256, MOST_ANCHORS = Output::BLOCK;

    std::int64_t image, begin, end, first, count;

    static std::int64_t most(const KernelArguments& arguments, std::int64_t held) {
        return held / MOST_HELD + arguments.images * (arguments.anchors / MOST_ANCHORS + 1);
    }

    // Divides all anchors of all images into stretches; returns the number of stretches.
    static std::int64_t cut(const KernelArguments& arguments, const Held& held, std::int64_t count, Stretch* stretches) {
        std::int64_t made = 0, next = 0;
        for (std::int64_t image = 0; image < arguments.images; ++image)
            for (std::int64_t begin = 0; begin < arguments.anchors;) {
                Stretch s{image, begin, std::min(begin + MOST_ANCHORS, arguments.anchors), next, 0};
                while (next < count && held.image[next] == image && held.anchor[next] < s.end && s.count < MOST_HELD) ++next, ++s.count;
                if (s.count == MOST_HELD) s.end = held.anchor[next - 1] + 1;
                stretches[made++] = s;
                begin = s.end;
            }
        return made;
    }
};

// Channels of logits that a held anchor needs: those of its sides, then its angle where the boxes have one.
template <class Geometry>
std::int64_t channels(const KernelArguments& arguments) {
    return SIDES * arguments.bins + Geometry::ANGLES;
}

template <class Geometry>
class HeldTile {
   public:
    static constexpr std::int64_t SIZE = Stretch::MOST_HELD;

    HeldTile(const KernelArguments& arguments, float* columns) : channels_(channels<Geometry>(arguments)), columns_(columns) {}

    static std::int64_t size(const KernelArguments& arguments) { return channels<Geometry>(arguments) * SIZE; }

    // Values of one channel at WIDE held anchors from `start` on; the last held anchor's value fills the lanes beyond it.
    Half get(std::int64_t channel, std::int64_t start) const {
        Half values;
        std::memcpy(&values, columns_ + channel * SIZE + start, sizeof values);
        return values;
    }
    // Replaces the values of all channels there.
    void put(const Wide* values, std::int64_t start) {
        for (std::int64_t channel = 0; channel < channels_; ++channel) {
            const Half narrowed = __builtin_convertvector(values[channel], Half);
            std::memcpy(columns_ + channel * SIZE + start, &narrowed, sizeof narrowed);
        }
    }

    template <class T>
    void read(const KernelArguments& arguments, const Held& held, const Stretch& stretch) {
        const std::int64_t* anchor = held.anchor + stretch.first;
        const std::int64_t whole = (stretch.count + LANES - 1) / LANES * LANES;
        for (std::int64_t channel = 0; channel < channels_; ++channel) {
            const T* row = logits<T>(arguments, stretch.image, channel);
            float* column = columns_ + channel * SIZE;
            for (std::int64_t h = 0; h < stretch.count; ++h) column[h] = widen(row[anchor[h]]);
            for (std::int64_t h = stretch.count; h < whole; ++h) column[h] = column[stretch.count - 1];
        }
    }

    // Writes the stretch into `boxes` (B, 4R, A) and `angle` (B, 1, A), contiguous, with 0 between the held anchors.
    template <class T>
    void write(const KernelArguments& arguments, const Held& held, const Stretch& stretch, T* boxes, T* angle, const Output& output) const {
        const std::int64_t* anchor = held.anchor + stretch.first;
        const std::int64_t of_sides = channels_ - Geometry::ANGLES;
        alignas(64) T block[Stretch::MOST_ANCHORS] = {};  // every channel has its numbers in the same places
        for (std::int64_t channel = 0; channel < channels_; ++channel) {
            T* row = channel < of_sides ? boxes + (stretch.image * of_sides + channel) * arguments.anchors : angle + stretch.image * arguments.anchors;
            for (std::int64_t h = 0; h < stretch.count; ++h) block[anchor[h] - stretch.begin] = narrow<T>(columns_[channel * SIZE + h]);
            output.copy(row + stretch.begin, block, stretch.end - stretch.begin);
        }
    }

   private:
    template <class T>
    const T* logits(const KernelArguments& arguments, std::int64_t image, std::int64_t channel) const {
        if (channel >= channels_ - Geometry::ANGLES) return static_cast<const T*>(arguments.angle) + image * arguments.angle_per_image;
        return static_cast<const T*>(arguments.boxes) + image * arguments.boxes_per_image + channel * arguments.boxes_per_channel;
    }

    std::int64_t channels_;
    float* columns_;  // [channel][SIZE]
};

}  // namespace twinloss
