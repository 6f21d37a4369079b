// The pixels of the crops, by image and by band of rows: a band of one image is a task of one thread, which alone writes the gradient of
// the prototypes there, so that no sum depends on the threads.
//
// Example: bands of 16 rows; box 0 of image 0 covers rows 10 to 20, box 1 rows 18 to 30. Three pieces:
//
//     task                    piece  box  rows       kept targets
//     image 0, rows  0 to 15    0     0   10 to 15   from byte 0
//     image 0, rows 16 to 31    1     0   16 to 20   after those of piece 0
//                               2     1   18 to 30   after those of piece 1
//
// Box 0 holds 10 anchors. Each of its pieces sums the gradient by their coefficients on its own: `partial` has room for 2 x 10 x P numbers.
#pragma once

#include <algorithm>

#include "mask_arguments.hpp"

namespace twinloss {

constexpr std::int64_t TILE_PIXELS = 128;  // pixels of a piece that are looked at together

struct Piece {
    std::int64_t box, y, end;     // rows [y, end)
    std::int64_t pixels, kept;    // number of pixels, and the first byte of their kept targets
};

class Pieces {
   public:
    // On grids of different size a task is a whole image: neighbouring bands would read common prototypes.
    static constexpr std::int64_t BAND = 16;

    Pieces(const MaskArguments& arguments, const HeldMasks& held, Scratch& scratch)
        : arguments_(arguments), held_(held), height_(arguments.same_grid() ? BAND : std::max<std::int64_t>(arguments.rows, 1)),
          bands_((arguments.rows + height_ - 1) / height_) {
        for (std::int64_t box = 0; box < held.boxes; ++box) count_ += bands_of(box);
        first_ = scratch.take<std::int64_t>(tasks() + 1);
        pieces_ = scratch.take<Piece>(count_);
        partial_ = scratch.take<std::int64_t>(held.boxes + 1);
    }

    void fill() {
        std::fill_n(first_, tasks() + 1, 0);
        for_each([&](std::int64_t task, std::int64_t) { ++first_[task + 1]; });
        for (std::int64_t task = 0; task < tasks(); ++task) first_[task + 1] += first_[task];
        for_each([&](std::int64_t task, std::int64_t box) {
            const std::int64_t* crop = held_.crop + 4 * box;
            const std::int64_t y = std::max(crop[1], task % bands_ * height_), end = std::min(crop[3], (task % bands_ + 1) * height_);
            pieces_[first_[task]++] = {box, y, end, (end - y) * (crop[2] - crop[0]), 0};
        });
        for (std::int64_t task = tasks(); task > 0; --task) first_[task] = first_[task - 1];
        first_[0] = 0;
        for (std::int64_t n = 0, kept = 0; n < count_; kept += kept_bytes(pieces_[n++].pixels)) pieces_[n].kept = kept;
        partial_[0] = 0;
        for (std::int64_t box = 0; box < held_.boxes; ++box) partial_[box + 1] = partial_[box] + bands_of(box) * held_.count[box];
    }

    // Bytes in which the targets of all pixels are kept from one pass to the other.
    std::int64_t kept_bytes() const {
        std::int64_t bytes = 0;
        for_each([&](std::int64_t task, std::int64_t box) {
            const std::int64_t* crop = held_.crop + 4 * box;
            const std::int64_t y = std::max(crop[1], task % bands_ * height_), end = std::min(crop[3], (task % bands_ + 1) * height_);
            bytes += kept_bytes((end - y) * (crop[2] - crop[0]));
        });
        return bytes;
    }

    // Columns of P numbers in which the pieces sum the gradients by coefficients.
    std::int64_t partial_columns() const {
        std::int64_t columns = 0;
        for (std::int64_t box = 0; box < held_.boxes; ++box) columns += bands_of(box) * held_.count[box];
        return columns;
    }

    std::int64_t count() const { return count_; }
    std::int64_t tasks() const { return arguments_.images * bands_; }
    std::int64_t height() const { return height_; }
    std::int64_t image(std::int64_t task) const { return task / bands_; }
    std::int64_t top(std::int64_t task) const { return task % bands_ * height_; }
    std::int64_t begin(std::int64_t task) const { return first_[task]; }
    std::int64_t end(std::int64_t task) const { return first_[task + 1]; }
    const Piece& operator[](std::int64_t n) const { return pieces_[n]; }

    std::int64_t bands_of(std::int64_t box) const {
        const std::int64_t* crop = held_.crop + 4 * box;
        return crop[2] > crop[0] && crop[3] > crop[1] ? (crop[3] - 1) / height_ - crop[1] / height_ + 1 : 0;
    }
    // The first of a box's columns of sums, for all of its pieces and for one of them.
    std::int64_t partial(std::int64_t box) const { return partial_[box]; }
    std::int64_t partial(const Piece& piece) const {
        return partial_[piece.box] + (piece.y / height_ - held_.crop[4 * piece.box + 1] / height_) * held_.count[piece.box];
    }

   private:
    // Calls `visit` with task and box of every piece, boxes ascending.
    template <class Visit>
    void for_each(Visit visit) const {
        for (std::int64_t box = 0; box < held_.boxes; ++box)
            for (std::int64_t band = held_.crop[4 * box + 1] / height_, last = band + bands_of(box); band < last; ++band)
                visit(held_.image[box] * bands_ + band, box);
    }

    std::int64_t kept_bytes(std::int64_t pixels) const {
        const std::int64_t tiles = (pixels + TILE_PIXELS - 1) / TILE_PIXELS;
        return arguments_.fractions() ? pixels * static_cast<std::int64_t>(sizeof(float)) : tiles * TILE_PIXELS / 8;
    }

    const MaskArguments& arguments_;
    const HeldMasks& held_;
    std::int64_t height_, bands_, count_ = 0;
    std::int64_t *first_, *partial_;
    Piece* pieces_;
};

// Calls `visit(y, x, offset, length)` for the adjacent pixels of each row in the tile of a piece that begins at its `start`-th pixel.
template <class Visit>
void for_each_run(const Piece& piece, const std::int64_t* crop, std::int64_t start, std::int64_t count, Visit visit) {
    const std::int64_t columns = crop[2] - crop[0];
    std::int64_t y = piece.y + start / columns, x = crop[0] + start % columns;
    for (std::int64_t offset = 0; offset < count; ++y, x = crop[0]) {
        const std::int64_t length = std::min(crop[2] - x, count - offset);
        visit(y, x, offset, length);
        offset += length;
    }
}

}  // namespace twinloss
