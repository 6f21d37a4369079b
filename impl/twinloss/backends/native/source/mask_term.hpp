// The mask term, forward and backward (segmentation spec section 4).
//
// mask_term, mask_gradients
// └─ each task: an image and a band of its rows (mask_pieces.hpp)
//    └─ each piece: a box's pixels in the band
//       └─ each tile of TILE_PIXELS of them, CHUNK of the box's anchors at a time
//          ├─ MaskTile::read      prototypes of the pixels, once for all anchors
//          ├─ MaskTargets         forward: read, and kept as bits; backward: restored
//          ├─ logits              coefficients · prototypes
//          ├─ forward             Σ cross-entropy → `loss` of the piece
//          └─ backward            residual σ(x) − y, times the box's factor; its products → band of the prototypes' gradient, which is
//                                 written once, and `partial` sums of the coefficients' gradient, which `add_up` adds, band by band
//
// Example. The masks' grid is 2 pixels wide and 1 high, a box covers it (a_j = 1) and holds one anchor, so that a pixel counts 1 / (2 · 1 · 1):
//
//                           pixel 0      pixel 1      gradient by the coefficient
//     prototype 0           0.5          1            −0.189 · 0.5 + 0.25 · 1 = 0.156      coefficient  1
//     prototype 1           0           −0.5          −0.189 · 0 + 0.25 · −0.5 = −0.125    coefficient  2
//     logit                 0.5          0
//     target                1            0
//     cross-entropy         0.474        0.693        term (0.474 + 0.693) / 2 = 0.584
//     residual (σ − y) / 2  −0.189       0.25
//     gradient, prototype 0 −0.189       0.25
//     gradient, prototype 1 −0.378       0.5
//
// Logits are computed again in the backward pass: that is cheaper than to keep them, and than to scale a kept gradient of the prototypes.
#pragma once

#include "classification.hpp"
#include "mask_tile.hpp"
#include "threads.hpp"

namespace twinloss {

constexpr std::int64_t CHUNK = 16;  // anchors of a box whose logits exist at the same time

// Σ over a vector's lanes of the cross-entropy of logits x with targets y = log(1 + e^−|x|) + |x| · (x > 0 ? 1 − y : y), without the
// logarithm: `excess` is the product of 1 + e^−|x| minus 1, `positive` the rest.
struct Entropy {
    Lanes excess{}, positive{};

    void add(Lanes x, Lanes y, Bits<Lanes> inside) {
        const Lanes size = magnitude(x), e = choose<Lanes>(inside, exp_of_negative(-size), Lanes{});
        excess = excess + e + excess * e;
        positive += choose<Lanes>(inside, size * choose<Lanes>(x > 0.0f, 1.0f - y, y), Lanes{});
    }
    void add_to(double& sum) const {
        const Lanes found = log_of_one_and(excess) + positive;
        for (int lane = 0; lane < LANES; ++lane) sum += found[lane];
    }
};
static_assert(TILE_PIXELS / SUMMED <= 32);  // the product stays below 2^32

// Lanes of the v-th vector that are among the first `count` pixels.
inline Bits<Lanes> among(std::int64_t v, std::int64_t count) {
    Bits<Lanes> lane;
    for (int n = 0; n < LANES; ++n) lane[n] = n;
    return lane < static_cast<std::int32_t>(std::min<std::int64_t>(count - v * LANES, LANES));
}

// Memory of one thread.
struct MaskWorkspace {
    MaskTile tile;
    MaskTargets* targets;
    float *logits, *to_tile, *band;
    Summed* sums;  // [anchors][P]

    MaskWorkspace(const MaskArguments& arguments, const HeldMasks& held, const Pieces& pieces, bool backward, Scratch& scratch)
        : tile(arguments, scratch), targets(scratch.take<MaskTargets>(1)), logits(scratch.take<float>(CHUNK * TILE_PIXELS)) {
        std::int64_t most = 0;
        for (std::int64_t box = 0; box < held.boxes; ++box) most = std::max(most, held.count[box]);
        const std::int64_t rows = arguments.same_grid() ? pieces.height() : arguments.tall, P = padded(arguments.prototypes);
        to_tile = scratch.take<float>(backward ? P * TILE_PIXELS : 0);
        band = scratch.take<float>(backward ? arguments.prototypes * rows * arguments.wide : 0);
        sums = scratch.take<Summed>(backward ? padded(most) * P : 0);
    }
};

class MaskTerm {
   public:
    MaskTerm(const MaskArguments& arguments, const HeldMasks& held, bool backward, Scratch& scratch)
        : arguments_(arguments), held_(held), backward_(backward), P_(padded(arguments.prototypes)), pieces_(arguments, held, scratch),
          columns_(scratch.take<float>(held.held * P_)), loss_(scratch.take<double>(pieces_.count())),
          partial_(scratch.take<float>(backward ? pieces_.partial_columns() * P_ : 0)) {
        Scratch one(nullptr);
        MaskWorkspace(arguments, held, pieces_, backward, one);
        workspace_size_ = (one.used() + 63) / 64 * 64;
        workspaces_ = scratch.take<char>(arguments.threads * workspace_size_);
    }

    // Returns the term, and fills `kept` for the backward pass.
    template <class T>
    double forward(std::uint8_t* kept) {
        prepare<T>();
        for_each_task([&](MaskWorkspace& work, std::int64_t task) {
            for (std::int64_t n = pieces_.begin(task); n < pieces_.end(task); ++n) loss_[n] = loss_of<T>(work, pieces_[n], kept);
        });
        double sum = 0;
        for (std::int64_t n = 0; n < pieces_.count(); ++n) sum += loss_[n] * held_.factor[pieces_[n].box];
        return sum;
    }

    // Writes the gradients by coefficients, contiguous (B, P, A), and by prototypes, contiguous (B, P, tall, wide), times `factor`; the latter
    // if it is not null.
    template <class T>
    void backward(const std::uint8_t* kept, float factor, T* to_coefficients, T* to_grids) {
        prepare<T>();
        by_grids_ = to_grids;
        for_each_task([&](MaskWorkspace& work, std::int64_t task) {
            const std::int64_t rows = rows_of(task), size = rows * arguments_.wide;
            if (by_grids_ && pieces_.begin(task) < pieces_.end(task)) std::fill_n(work.band, arguments_.prototypes * size, 0.0f);
            for (std::int64_t n = pieces_.begin(task); n < pieces_.end(task); ++n) gradient_of<T>(work, pieces_[n], task, kept, factor);
            if (by_grids_) write_band<T>(work, task, rows, to_grids);
        });
        add_up<T>(to_coefficients);
    }

   private:
    template <class Visit>
    void for_each_task(Visit visit) {
#pragma omp parallel num_threads(arguments_.threads)
        {
            Scratch own(workspaces_ + thread_number() * workspace_size_);
            MaskWorkspace work(arguments_, held_, pieces_, backward_, own);
#pragma omp for schedule(dynamic)
            for (std::int64_t task = 0; task < pieces_.tasks(); ++task) visit(work, task);
        }
    }

    // Gathers the coefficients of the held anchors, those of one box together.
    template <class T>
    void prepare() {
        pieces_.fill();
#pragma omp parallel for schedule(static) num_threads(arguments_.threads)
        for (std::int64_t box = 0; box < held_.boxes; ++box)
            for (std::int64_t h = held_.first[box]; h < held_.first[box] + held_.count[box]; ++h) {
                const T* column = static_cast<const T*>(arguments_.coefficients) + held_.image[box] * arguments_.coefficients_per_image +
                                  held_.anchor[held_.order[h]];
                for (std::int64_t p = 0; p < P_; ++p)
                    columns_[h * P_ + p] = p < arguments_.prototypes ? widen(column[p * arguments_.coefficients_per_channel]) : 0.0f;
            }
    }

    // Calls `visit(start, count)` for each tile of a piece, its prototypes and targets read.
    template <class T, class ReadTargets, class Visit>
    void for_each_tile(MaskWorkspace& work, const Piece& piece, ReadTargets read_targets, Visit visit) {
        const std::int64_t* crop = held_.crop + 4 * piece.box;
        for (std::int64_t start = 0; start < piece.pixels; start += TILE_PIXELS) {
            const std::int64_t count = std::min(TILE_PIXELS, piece.pixels - start);
            work.tile.template read<T>(piece, crop, held_.image[piece.box], start, count);
            read_targets(crop, start, count);
            visit(start, count);
        }
    }

    // Logits of anchors [from, from + size) of a box.
    void logits(MaskWorkspace& work, std::int64_t box, std::int64_t from, std::int64_t size, std::int64_t count) {
        for (std::int64_t a = 0; a < size; a += BLOCK) {
            const float* column[BLOCK];
            float* into[BLOCK];
            for (int m = 0; m < BLOCK; ++m) {
                column[m] = columns_ + (held_.first[box] + from + std::min(a + m, size - 1)) * P_;  // beyond the last, the last again
                into[m] = work.logits + (a + m) * TILE_PIXELS;
            }
            const auto weight = [&](int m, std::int64_t p) { return column[m][p]; };
            weighted_rows(arguments_.prototypes, weight, work.tile.values(), vectors_of(count), false, into);
        }
    }

    template <class T>
    double loss_of(MaskWorkspace& work, const Piece& piece, std::uint8_t* kept) {
        double sum = 0;
        const auto read = [&](const std::int64_t* crop, std::int64_t start, std::int64_t count) {
            with_mask_storage(arguments_.mask_storage, [&](auto type) {
                using M = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
                work.targets->template read<M>(arguments_, piece, crop, held_.image[piece.box], held_.row[piece.box], start, count,
                                               kept + piece.kept);
            });
        };
        for_each_tile<T>(work, piece, read, [&](std::int64_t, std::int64_t count) {
            for (std::int64_t from = 0; from < held_.count[piece.box]; from += CHUNK) {
                const std::int64_t size = std::min(CHUNK, held_.count[piece.box] - from);
                logits(work, piece.box, from, size, count);
                for (std::int64_t a = 0; a < size; ++a) {
                    Entropy parts[PARTS];
                    for (std::int64_t v = 0; v * LANES < count; ++v)
                        parts[v % PARTS].add(load(work.logits + a * TILE_PIXELS + v * LANES), load(work.targets->value + v * LANES), among(v, count));
                    double of_anchor = 0;
                    for (const Entropy& part : parts) part.add_to(of_anchor);
                    sum += of_anchor;
                }
            }
        });
        return sum;
    }

    template <class T>
    void gradient_of(MaskWorkspace& work, const Piece& piece, std::int64_t task, const std::uint8_t* kept, float factor) {
        const std::int64_t anchors = held_.count[piece.box], top = arguments_.same_grid() ? pieces_.top(task) : 0;
        std::fill_n(work.sums, padded(anchors) * P_, Summed{});
        const float scale = held_.factor[piece.box] * factor;
        const auto restore = [&](const std::int64_t*, std::int64_t start, std::int64_t count) {
            work.targets->restore(arguments_, kept + piece.kept, start, count);
        };
        for_each_tile<T>(work, piece, restore, [&](std::int64_t start, std::int64_t count) {
            for (std::int64_t from = 0; from < anchors; from += CHUNK) {
                const std::int64_t size = std::min(CHUNK, anchors - from);
                logits(work, piece.box, from, size, count);
                for (std::int64_t a = 0; a < padded(size); ++a)
                    for (std::int64_t v = 0; v < vectors_of(count); ++v) {
                        float* place = work.logits + a * TILE_PIXELS + v * LANES;
                        const Lanes residual = (sigmoid(load(place)) - load(work.targets->value + v * LANES)) * scale;
                        store(place, a < size ? choose<Lanes>(among(v, count), residual, Lanes{}) : Lanes{});
                    }
                multiply(work, piece.box, from, size, count);
            }
            if (by_grids_)
                work.tile.add_adjoint(piece, held_.crop + 4 * piece.box, start, count, work.to_tile, top, rows_of(task) * arguments_.wide,
                                      work.band);
        });
        float* sums = partial_ + pieces_.partial(piece) * P_;
        for (std::int64_t n = 0; n < anchors * P_; ++n) sums[n] = work.sums[n].total();
    }

    // Both products of residuals: with the prototypes into `sums`, with the coefficients into `to_tile`.
    void multiply(MaskWorkspace& work, std::int64_t box, std::int64_t from, std::int64_t size, std::int64_t count) {
        const float* columns = columns_ + (held_.first[box] + from) * P_;
        for (std::int64_t p = 0; p < P_; p += BLOCK) {
            float* into[BLOCK];
            for (int m = 0; m < BLOCK; ++m) into[m] = work.to_tile + (p + m) * TILE_PIXELS;
            const auto weight = [&](int m, std::int64_t a) { return columns[a * P_ + p + m]; };
            if (by_grids_) weighted_rows(size, weight, work.logits, vectors_of(count), from > 0, into);
            for (std::int64_t a = 0; a < size; a += BLOCK) {
                const float* rows[BLOCK];
                Summed* sums[BLOCK];
                for (int m = 0; m < BLOCK; ++m) {
                    rows[m] = work.logits + (a + m) * TILE_PIXELS;
                    sums[m] = work.sums + (from + a + m) * P_ + p;
                }
                add_inner_products(rows, work.tile.values() + p * TILE_PIXELS, vectors_of(count), sums);
            }
        }
    }

    // Rows of the prototypes' grid that a task's pieces read.
    std::int64_t rows_of(std::int64_t task) const {
        return arguments_.same_grid() ? std::min(pieces_.height(), arguments_.tall - pieces_.top(task)) : arguments_.tall;
    }

    template <class T>
    void write_band(const MaskWorkspace& work, std::int64_t task, std::int64_t rows, T* to_grids) const {
        const std::int64_t size = rows * arguments_.wide, top = arguments_.same_grid() ? pieces_.top(task) : 0;
        const bool any = pieces_.begin(task) < pieces_.end(task);
        for (std::int64_t p = 0; p < arguments_.prototypes; ++p) {
            T* into = to_grids + ((pieces_.image(task) * arguments_.prototypes + p) * arguments_.tall + top) * arguments_.wide;
            if (any)
                for (std::int64_t i = 0; i < size; ++i) into[i] = narrow<T>(work.band[p * size + i]);
            else std::memset(static_cast<void*>(into), 0, static_cast<std::size_t>(size) * sizeof(T));
        }
    }

    // Adds the pieces' sums, bands in ascending order, and writes the gradient of the coefficients.
    template <class T>
    void add_up(T* to_coefficients) const {
        const std::int64_t A = arguments_.anchors, P = arguments_.prototypes;
#pragma omp parallel num_threads(arguments_.threads)
        {
#pragma omp for schedule(static)
            for (std::int64_t row = 0; row < arguments_.images * P; ++row)
                std::memset(static_cast<void*>(to_coefficients + row * A), 0, static_cast<std::size_t>(A) * sizeof(T));
#pragma omp for schedule(static)
            for (std::int64_t box = 0; box < held_.boxes; ++box)
                for (std::int64_t k = 0; k < held_.count[box]; ++k)
                    for (std::int64_t p = 0; p < P; ++p) {
                        float sum = 0;
                        for (std::int64_t band = 0; band < pieces_.bands_of(box); ++band)
                            sum += partial_[(pieces_.partial(box) + band * held_.count[box] + k) * P_ + p];
                        const std::int64_t anchor = held_.anchor[held_.order[held_.first[box] + k]];
                        to_coefficients[(held_.image[box] * P + p) * A + anchor] = narrow<T>(sum);
                    }
        }
    }

    const MaskArguments& arguments_;
    const HeldMasks& held_;
    bool backward_, by_grids_ = true;  // whether there is a gradient at all, and by the prototypes
    std::int64_t P_;  // padded
    Pieces pieces_;
    float* columns_;  // [held][P]
    double* loss_;    // of each piece, before its box's factor
    float* partial_;
    std::int64_t workspace_size_;
    char* workspaces_;
};

}  // namespace twinloss
