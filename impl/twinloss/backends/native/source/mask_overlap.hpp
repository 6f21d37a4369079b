// The masks' part of the mask-aware overlap: for the 3K candidates of a box that are best by their boxes, the IoU of the anchor's predicted
// mask and the box's true mask, on the prototypes' grid (segmentation spec section 3).
//
// MaskOverlaps
// ├─ preselect (per box)      the caller offers candidates to `Picks`; `close` sorts what remains by anchor
// └─ compare
//    ├─ list (per image)      pairs by anchor: one predicted mask serves all boxes that preselected its anchor
//    ├─ true masks            index maps resized to the grid; pixels of each true mask
//    ├─ count (per band)      signs of the logits inside the predicted box, LANES pixels at a time, summed as integers: in any order
//    └─ quotients             μ = |∩| / max(|∪|, 1)
//
// Example. Anchor 7 is preselected for boxes 0 and 2, anchor 9 for box 0. The list of the image is (7, box 0), (7, box 2), (9, box 0). The
// predicted mask of anchor 7 is computed once; its pixels are counted at place 0 of the list, those common with box 0 at place 0, those
// common with box 2 at place 1.
#pragma once

#include <algorithm>

#include "conflict.hpp"
#include "mask_arguments.hpp"
#include "storage.hpp"
#include "threads.hpp"

namespace twinloss {

// Which input each output of an axis takes when it is resized by nearest (segmentation spec section 4).
inline std::int64_t nearest(std::int64_t place, std::int64_t size, std::int64_t resized) {
    const float scale = static_cast<float>(static_cast<double>(size) / static_cast<double>(resized));
    return std::min(static_cast<std::int64_t>(static_cast<float>(place) * scale), size - 1);
}

class MaskOverlaps {
   public:
    static constexpr std::int64_t PRESELECTED = 3;  // candidates whose masks are compared, in units of K

    MaskOverlaps(const KernelArguments& arguments, Scratch& scratch)
        : boxes_(arguments), masks_(arguments.masks), most_(masks_ ? std::min(PRESELECTED * arguments.topk, arguments.anchors) : 0) {
        const std::int64_t pairs = arguments.rows * most_;
        places_ = scratch.take<Pick>(pairs);
        count_ = scratch.take<std::int64_t>(masks_ ? arguments.rows : 0);
        if (!masks_) return;
        list_ = scratch.take<Listed>(pairs);
        listed_ = scratch.take<std::int64_t>(arguments.images);
        predicted_ = scratch.take<std::int32_t>(pairs);
        common_ = scratch.take<std::int32_t>(pairs);
        columns_ = scratch.take<float>(pairs * masks_->prototypes);
        size_ = scratch.take<std::int32_t>(arguments.rows);
        width_ = (masks_->wide + LANES - 1) / LANES * LANES;
        map_ = scratch.take<std::int32_t>(masks_->place ? arguments.images * masks_->tall * width_ : 0);
        column_of_ = scratch.take<std::int32_t>(width_);
        band_ = scratch.take<float>(arguments.threads * BAND * width_ * masks_->prototypes);
    }

    explicit operator bool() const { return masks_; }

    Picks picks(std::int64_t box) { return Picks(places_ + box * most_, most_); }

    // Ends the preselection of a box; on from here its picks lie in the order of their anchors.
    void close(std::int64_t box, std::int64_t count) {
        count_[box] = count;
        std::sort(places_ + box * most_, places_ + box * most_ + count, [](const Pick& a, const Pick& b) { return a.anchor < b.anchor; });
    }

    // Replaces the preselected pairs' overlaps by the IoU of their masks. `first`: the first box of each image; `row`: each box's row of the
    // batch; `corners`: four arrays (B, A) of predicted boxes in pixels.
    template <class T>
    void compare(const std::int64_t* first, const std::int64_t* row, float* const* corners) {
        const std::int64_t images = boxes_.images, bands = (masks_->tall + BAND - 1) / BAND;
        for (std::int64_t x = 0; x < width_; ++x)
            column_of_[x] = x < masks_->wide ? static_cast<std::int32_t>(nearest(x, masks_->columns, masks_->wide)) : 0;
#pragma omp parallel num_threads(boxes_.threads)
        {
#pragma omp for schedule(dynamic)
            for (std::int64_t image = 0; image < images; ++image) list<T>(image, first);
            with_mask_storage(masks_->mask_storage, [&](auto type) {
                using M = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
                if (masks_->place) {
#pragma omp for schedule(dynamic)
                    for (std::int64_t image = 0; image < images; ++image) read_map<M>(image, first, row);
                } else {
#pragma omp for schedule(dynamic)
                    for (std::int64_t box = 0; box < first[images]; ++box) size_[box] = size_of<M>(row[box]);
                }
#pragma omp for schedule(dynamic)
                for (std::int64_t task = 0; task < images * bands; ++task)
                    count<T, M>(task / bands, task % bands * BAND, first, row, corners);
            });
#pragma omp for schedule(dynamic)
            for (std::int64_t image = 0; image < images; ++image) divide(image, first);
        }
    }

    // Joins the overlaps of a box's candidates, which are offered in the order of their anchors, with what `compare` found.
    class Join {
       public:
        Join(const MaskOverlaps& found, std::int64_t box) : next_(found.places_ + box * found.most_), end_(next_ + (found.masks_ ? found.count_[box] : 0)) {}

        float operator()(std::uint32_t anchor, float overlap) {
            const bool preselected = next_ < end_ && next_->anchor == anchor;
            return (overlap + (preselected ? next_++->overlap : 0.0f)) / 2;
        }

       private:
        const Pick *next_, *end_;
    };

   private:
    static constexpr std::int64_t BAND = 16;

    struct Listed {
        std::uint32_t anchor;
        std::uint32_t box;
        std::int64_t pair;
    };

    // Lists an image's pairs by anchor, and gathers the anchors' coefficients.
    template <class T>
    void list(std::int64_t image, const std::int64_t* first) {
        Listed* list = list_ + first[image] * most_;
        std::int64_t listed = 0;
        for (std::int64_t box = first[image]; box < first[image + 1]; ++box)
            for (std::int64_t k = 0; k < count_[box]; ++k)
                list[listed++] = {places_[box * most_ + k].anchor, static_cast<std::uint32_t>(box), box * most_ + k};
        std::sort(list, list + listed, [](const Listed& a, const Listed& b) { return a.anchor != b.anchor ? a.anchor < b.anchor : a.box < b.box; });
        listed_[image] = listed;
        const T* coefficients = static_cast<const T*>(masks_->coefficients) + image * masks_->coefficients_per_image;
        for (std::int64_t n = 0; n < listed; ++n) {
            const std::int64_t place = first[image] * most_ + n;
            predicted_[place] = common_[place] = 0;
            for (std::int64_t p = 0; p < masks_->prototypes && leads(list, n); ++p)
                columns_[place * masks_->prototypes + p] = widen(coefficients[p * masks_->coefficients_per_channel + list[n].anchor]);
        }
    }

    // Whether the n-th of a list is the first of its anchor.
    static bool leads(const Listed* list, std::int64_t n) { return n == 0 || list[n].anchor != list[n - 1].anchor; }

    // A whole index from 1; 0 for anything else.
    static std::int32_t index_of(double value) {
        return value > 0 && value < INT32_MAX && std::floor(value) == value ? static_cast<std::int32_t>(value) : 0;
    }

    // The index map of an image on the prototypes' grid, and the pixels of its boxes.
    template <class M>
    void read_map(std::int64_t image, const std::int64_t* first, const std::int64_t* row) {
        std::int32_t* map = map_ + image * masks_->tall * width_;
        for (std::int64_t y = 0; y < masks_->tall; ++y) {
            const M* from = static_cast<const M*>(masks_->masks) + image * masks_->masks_per_mask +
                            nearest(y, masks_->rows, masks_->tall) * masks_->masks_per_row;
            for (std::int64_t x = 0; x < masks_->wide; ++x) map[y * width_ + x] = index_of(static_cast<double>(from[column_of_[x]]));
            std::fill(map + y * width_ + masks_->wide, map + (y + 1) * width_, 0);
        }
        // Boxes of an image ascend by place, so that a search finds the box of an index.
        const std::int64_t* begin = row + first[image];
        const std::int64_t* end = row + first[image + 1];
        std::fill(size_ + first[image], size_ + first[image + 1], 0);
        for (std::int64_t pixel = 0; pixel < masks_->tall * width_; ++pixel) {
            if (map[pixel] == 0) continue;
            const std::int64_t* found =
                std::lower_bound(begin, end, map[pixel] - 1, [&](std::int64_t r, std::int64_t place) { return masks_->place[r] < place; });
            if (found < end && masks_->place[*found] == map[pixel] - 1) ++size_[found - row];
        }
    }

    // Whether an instance mask shows at a pixel of the prototypes' grid.
    template <class M>
    bool shows(std::int64_t row, std::int64_t y, std::int64_t x) const {
        const M* mask = static_cast<const M*>(masks_->masks) + row * masks_->masks_per_mask;
        return static_cast<float>(mask[nearest(y, masks_->rows, masks_->tall) * masks_->masks_per_row + column_of_[x]]) > 0.5f;
    }

    template <class M>
    std::int32_t size_of(std::int64_t row) const {
        std::int32_t size = 0;
        for (std::int64_t y = 0; y < masks_->tall; ++y)
            for (std::int64_t x = 0; x < masks_->wide; ++x) size += shows<M>(row, y, x);
        return size;
    }

    // Adds the pixels of one band of an image: of predicted masks, and of those common with true ones.
    template <class T, class M>
    void count(std::int64_t image, std::int64_t top, const std::int64_t* first, const std::int64_t* row, float* const* corners) {
        const Listed* list = list_ + first[image] * most_;
        float* band = band_ + thread_number() * BAND * width_ * masks_->prototypes;
        const std::int64_t bottom = std::min(top + BAND, masks_->tall);
        bool packed = false;
        for (std::int64_t n = 0, next; n < listed_[image]; n = next) {
            for (next = n + 1; next < listed_[image] && !leads(list, next);) ++next;
            const Crop crop(*masks_, corners, image * boxes_.anchors + list[n].anchor, boxes_.height());
            const std::int64_t y1 = std::max(crop.y1, top), y2 = std::min(crop.y2, bottom);
            if (y1 >= y2 || crop.x1 >= crop.x2) continue;
            if (!packed) pack<T>(image, top, bottom, band);
            packed = true;
            count_anchor<M>(image, first[image] * most_, list, n, next, {crop.x1, y1, crop.x2, y2}, top, row, band);
        }
    }

    // Pixels inside a predicted box: [x1, x2) and [y1, y2).
    struct Crop {
        std::int64_t x1, y1, x2, y2;

        Crop(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) : x1(a), y1(b), x2(c), y2(d) {}
        Crop(const MaskArguments& masks, float* const* corners, std::int64_t cell, float height) {
            const float scale = static_cast<float>(static_cast<double>(masks.tall) / static_cast<double>(height));
            const auto whole = [&](int side, std::int64_t limit) {
                const float at = std::ceil(corners[side][cell] * scale);
                return at > 0 ? static_cast<std::int64_t>(std::min(at, static_cast<float>(limit))) : 0;  // 0 for NaN
            };
            x1 = whole(0, masks.wide), y1 = whole(1, masks.tall), x2 = whole(2, masks.wide), y2 = whole(3, masks.tall);
        }
    };

    // Copies a band of prototypes to [row][vector of columns][P][LANES], where the values of a vector of pixels lie side by side.
    template <class T>
    void pack(std::int64_t image, std::int64_t top, std::int64_t bottom, float* band) const {
        for (std::int64_t p = 0; p < masks_->prototypes; ++p)
            for (std::int64_t y = top; y < bottom; ++y) {
                const T* from = static_cast<const T*>(masks_->grids) + image * masks_->grids_per_image + p * masks_->grids_per_channel +
                                y * masks_->grids_per_row;
                float* into = band + ((y - top) * (width_ / LANES) * masks_->prototypes + p) * LANES;
                for (std::int64_t x = 0; x < width_; x += LANES)
                    store(into + x * masks_->prototypes, load_some(from + x, masks_->wide - x, 0.0f));
            }
    }

    template <class M>
    void count_anchor(std::int64_t image, std::int64_t place, const Listed* list, std::int64_t begin, std::int64_t end, const Crop& crop,
                      std::int64_t top, const std::int64_t* row, const float* band) {
        const float* column = columns_ + (place + begin) * masks_->prototypes;
        Bits<Lanes> lane{}, predicted{};
        for (int n = 0; n < LANES; ++n) lane[n] = n;
        for (std::int64_t y = crop.y1; y < crop.y2; ++y)
            for (std::int64_t x = crop.x1 / LANES * LANES; x < crop.x2; x += LANES) {
                const float* values = band + ((y - top) * width_ + x) * masks_->prototypes;
                Lanes logit{};
                for (std::int64_t p = 0; p < masks_->prototypes; ++p) logit += splat(column[p]) * load(values + p * LANES);
                const auto at = static_cast<std::int32_t>(x);
                const Bits<Lanes> shown = (logit > 0.0f) & (lane + at >= static_cast<std::int32_t>(crop.x1)) & (lane + at < static_cast<std::int32_t>(crop.x2));
                predicted -= shown;
                for (std::int64_t n = begin; n < end; ++n) add(common_[place + n], shown & truth<M>(image, row[list[n].box], y, x, shown));
            }
        add(predicted_[place + begin], -predicted);
    }

    // Lanes where a row's true mask shows, of those in `wanted` at least.
    template <class M>
    Bits<Lanes> truth(std::int64_t image, std::int64_t row, std::int64_t y, std::int64_t x, Bits<Lanes> wanted) const {
        Bits<Lanes> found{};
        if (masks_->place) {
            std::memcpy(&found, map_ + (image * masks_->tall + y) * width_ + x, sizeof found);
            return found == static_cast<std::int32_t>(masks_->place[row] + 1);
        }
        for (int lane = 0; lane < LANES; ++lane)
            if (wanted[lane]) found[lane] = shows<M>(row, y, x + lane) ? -1 : 0;
        return found;
    }

    // Adds a vector of −1 and 0, or of negative sums.
    static void add(std::int32_t& to, Bits<Lanes> lanes) {
        std::int32_t sum = 0;
        for (int lane = 0; lane < LANES; ++lane) sum -= lanes[lane];
        if (sum) __atomic_fetch_add(&to, sum, __ATOMIC_RELAXED);
    }

    void divide(std::int64_t image, const std::int64_t* first) {
        const Listed* list = list_ + first[image] * most_;
        std::int64_t place = first[image] * most_;
        std::int32_t predicted = 0;
        for (std::int64_t n = 0; n < listed_[image]; ++n, ++place) {
            if (leads(list, n)) predicted = predicted_[place];
            const std::int32_t joint = predicted + size_[list[n].box] - common_[place];
            places_[list[n].pair].overlap = static_cast<float>(common_[place]) / static_cast<float>(std::max(joint, 1));
        }
    }

    const KernelArguments& boxes_;
    const MaskArguments* masks_;
    std::int64_t most_, width_ = 0;  // pairs of a box at most; columns of the grid, up to whole vectors
    Pick* places_;                   // [box][most_]
    std::int64_t* count_;
    Listed* list_ = nullptr;         // by image from first[image] · most_ on, as the following
    std::int64_t* listed_ = nullptr;
    std::int32_t *predicted_ = nullptr, *common_ = nullptr;
    float *columns_ = nullptr, *band_ = nullptr;
    std::int32_t *size_ = nullptr, *map_ = nullptr, *column_of_ = nullptr;
};

}  // namespace twinloss
