// Task-aligned assignment: which anchor learns from which box, and with what weight (spec section 5).
//
// Assigner::run
// ├─ window, Predicted::fill      a window of candidates per box and level; predicted boxes there
// ├─ preselect (per box)          mask-aware assignment alone: candidates whose masks `MaskOverlaps::compare` compares
// ├─ pick     (per box)           overlap and metric of its candidates, LANES at a time (`judge`); its K best → picks_
// │                               every candidate (for "pickers": every pick) enters `contest_` with its overlap
// ├─ resolve  (per image)         an anchor that one box picked: that box holds it; that several picked: the winner of `contest_`
// ├─ second_topk (per image)      if topk2 differs from K, each box keeps its topk2 anchors of largest metric
// └─ weigh, list                  soft targets t = m · O / (M + ε_a); anchors with t > 0 in the order of image, then anchor
//
// Example. Box 0 picks anchors 5 and 7, box 1 anchors 7 and 8; anchor 7 overlaps box 0 by 0.5 and box 1 by 0.7. Then pickers_ is 1, 2, 1
// at anchors 5, 7, 8, and holder_ is 0, 1, 1. Box 1 holds metrics m = 0.2, 0.4 and overlaps 0.7, 0.8: M = 0.4 and O = 0.8, so that
// anchor 7 gets t = 0.2 · 0.8 / 0.4 = 0.4, and anchor 8 t = 0.8.
//
// A cell is an anchor's index in the whole batch: image · A + anchor.
#pragma once

#include "conflict.hpp"
#include "decode.hpp"
#include "mask_overlap.hpp"

namespace twinloss {

// Candidates of a box, up to a vector of them.
struct Candidates {
    const Anchors& anchors;
    std::int64_t image;
    std::uint32_t anchor[LANES];
    int count = 0;
};

template <class Geometry>
class Assigner {
   public:
    Assigner(const KernelArguments& arguments, Scratch& scratch)
        : arguments_(arguments), anchors_(arguments, scratch), truth_(arguments, scratch), predicted_(arguments, scratch),
          contest_(arguments, scratch), masks_(arguments, scratch) {
        const std::int64_t cells = arguments.images * arguments.anchors;
        windows_ = scratch.take<Window>(arguments.rows * arguments.levels);
        picks_ = scratch.take<Pick>(arguments.rows * arguments.kept());
        picked_ = scratch.take<std::int64_t>(arguments.rows);
        nan_carrier_ = scratch.take<float>(arguments.rows);
        holder_ = scratch.take<std::uint32_t>(cells);
        pickers_ = scratch.take<std::uint32_t>(cells);
        metric_ = scratch.take<float>(cells);
        overlap_ = scratch.take<float>(cells);
        best_ = scratch.take<Best>(arguments.rows);
        held_by_image_ = scratch.take<std::int64_t>(arguments.images + 1);
        holdings_ = scratch.take<Holding>(arguments.topk2 ? cells : 0);
    }

    // Fills `held`; returns the number of held anchors.
    template <class T>
    std::int64_t run(Held& held) {
        anchors_.fill(arguments_);
        truth_.fill(arguments_);
        for (std::int64_t box = 0; box < truth_.count; ++box)
            for (std::int64_t level = 0; level < arguments_.levels; ++level)
                windows_[box * arguments_.levels + level] = Geometry::window(arguments_, truth_.box[box], level);
        predicted_.template fill<T>(arguments_, anchors_, truth_, windows_);
        if (masks_) {
#pragma omp parallel for schedule(dynamic, 8) num_threads(arguments_.threads)
            for (std::int64_t box = 0; box < truth_.count; ++box) preselect<T>(box);
            masks_.template compare<T>(truth_.first, truth_.row, predicted_.number);
        }
#pragma omp parallel num_threads(arguments_.threads)
        {
#pragma omp for schedule(static)
            for (std::int64_t image = 0; image < arguments_.images; ++image)
                contest_.clear(image * arguments_.anchors, arguments_.anchors);
#pragma omp for schedule(dynamic, 8)
            for (std::int64_t box = 0; box < truth_.count; ++box) pick<T>(box);
        }
        float nan_carrier = 0;  // NaN if a metric is NaN: comparisons drop it, and the loss must show it (spec section 10)
        for (std::int64_t box = 0; box < truth_.count; ++box) nan_carrier += nan_carrier_[box];
#pragma omp parallel for schedule(dynamic) num_threads(arguments_.threads)
        for (std::int64_t image = 0; image < arguments_.images; ++image) {
            held_by_image_[image] = 0;
            if (truth_.first[image] == truth_.first[image + 1]) continue;
            resolve<T>(image);
            if (arguments_.topk2) second_topk(image);
            held_by_image_[image] = weigh(image, nan_carrier);
        }
        return list(held);
    }

   private:
    using Truth = typename Geometry::Truth;

    struct Best {
        std::uint32_t metric, overlap;  // ranks of the largest ones among the anchors that a box holds
    };

    struct Holding {
        std::uint32_t box, metric;  // the metric's rank
        std::int64_t cell;
    };

    template <class T>
    const T* scores_of(std::int64_t box) const {
        const std::int64_t row = truth_.row[box];
        return static_cast<const T*>(arguments_.scores) + arguments_.image[row] * arguments_.scores_per_image +
               arguments_.label[row] * arguments_.scores_per_channel;
    }

    // Calls `visit` for all candidates of a box, up to LANES of them at a time, in the order of their anchors.
    template <class Visit>
    void for_each_candidates(std::int64_t box, Visit visit) const {
        Candidates candidates{anchors_, truth_.image(arguments_, box), {}, 0};
        std::int64_t offset = 0;
        for (std::int64_t level = 0; level < arguments_.levels; ++level) {
            const Window& w = windows_[box * arguments_.levels + level];
            const float stride = static_cast<float>(arguments_.strides[level]);
            for (std::int64_t y = w.y; y < w.y + w.rows; ++y) {
                const Run run = Geometry::candidates(truth_.box[box], w, y, stride);
                for (std::int64_t x = run.x; x < run.x + run.columns; ++x) {
                    candidates.anchor[candidates.count++] = static_cast<std::uint32_t>(offset + y * arguments_.grid_columns[level] + x);
                    if (candidates.count < LANES) continue;
                    visit(candidates);
                    candidates.count = 0;
                }
            }
            offset += arguments_.grid_rows[level] * arguments_.grid_columns[level];
        }
        if (candidates.count) visit(candidates);
    }

    // Keeps the candidates whose masks are compared: those of largest p^α · c^β + ε_a (segmentation spec section 3.1).
    template <class T>
    void preselect(std::int64_t box) {
        const Truth truth(arguments_, truth_.box[box]);
        Picks picks = masks_.picks(box);
        for_each_candidates(box, [&](const Candidates& candidates) {
            const Judged judged = judge<T>(box, truth, candidates);
            const Lanes quality = Geometry::metric(arguments_, judged.score, judged.overlap) + arguments_.assign_eps;
            for (int lane = 0; lane < candidates.count; ++lane) picks.offer({rank_of(quality[lane]), candidates.anchor[lane], 0});
        });
        masks_.close(box, picks.count());
    }

    template <class T>
    void pick(std::int64_t box) {
        const Truth truth(arguments_, truth_.box[box]);
        Picks picks(picks_ + box * arguments_.kept(), arguments_.kept());
        MaskOverlaps::Join join(masks_, box);
        nan_carrier_[box] = 0;
        for_each_candidates(box, [&](const Candidates& candidates) {
            Judged judged = judge<T>(box, truth, candidates);
            for (int lane = 0; masks_ && lane < candidates.count; ++lane)
                judged.overlap[lane] = join(candidates.anchor[lane], judged.overlap[lane]);
            const Lanes metric = Geometry::metric(arguments_, judged.score, judged.overlap);
            for (int lane = 0; lane < candidates.count; ++lane) {
                if (arguments_.overlap_decides)
                    contest_.enter(first_cell(box) + candidates.anchor[lane], judged.overlap[lane], static_cast<std::uint32_t>(box));
                picks.offer({rank_of(metric[lane]), candidates.anchor[lane], judged.overlap[lane]});
                nan_carrier_[box] += metric[lane] * 0;
            }
        });
        picked_[box] = picks.count();
        if (!arguments_.overlap_decides)
            for (std::int64_t k = 0; k < picks.count(); ++k) {
                const Pick& p = picks_[box * arguments_.kept() + k];
                contest_.enter(first_cell(box) + p.anchor, p.overlap, static_cast<std::uint32_t>(box));
            }
    }

    std::int64_t first_cell(std::int64_t box) const { return truth_.image(arguments_, box) * arguments_.anchors; }

    struct Judged {
        Lanes score, overlap;
    };

    template <class T>
    Judged judge(std::int64_t box, const Truth& truth, const Candidates& candidates) const {
        const std::int64_t first = first_cell(box);
        const T* of_class = scores_of<T>(box);
        Lanes numbers[Geometry::NUMBERS]{}, score{};
        for (int lane = 0; lane < candidates.count; ++lane) {
            const std::int64_t cell = first + candidates.anchor[lane];
            for (int n = 0; n < Geometry::NUMBERS; ++n) numbers[n][lane] = predicted_.number[n][cell];
            score[lane] = widen(of_class[candidates.anchor[lane]]);
        }
        return {score, larger(truth.template overlap<T>(arguments_, numbers, candidates), Lanes{})};
    }

    // Gives every picked anchor to one box (spec section 5.5).
    template <class T>
    void resolve(std::int64_t image) {
        const std::int64_t first = image * arguments_.anchors;
        std::memset(pickers_ + first, 0, static_cast<std::size_t>(arguments_.anchors) * sizeof *pickers_);
        for_each_pick(image, [&](std::int64_t, const Pick& pick) { ++pickers_[first + pick.anchor]; });
        for (std::int64_t cell = first; cell < first + arguments_.anchors; ++cell) {
            holder_[cell] = NOBODY;
            if (pickers_[cell] < 2 || contest_.winner(cell) == NOBODY) continue;
            // The winner may not have picked the anchor, so its metric is computed again.
            const std::uint32_t box = contest_.winner(cell);
            const Lanes score = splat(widen(scores_of<T>(box)[cell - first]));
            const float overlap = contest_.overlap(cell);
            hold(cell, box, Geometry::metric(arguments_, score, splat(overlap))[0], overlap);
        }
        for_each_pick(image, [&](std::int64_t box, const Pick& pick) {
            if (pickers_[first + pick.anchor] == 1)
                hold(first + pick.anchor, static_cast<std::uint32_t>(box), value_of(pick.metric), pick.overlap);
        });
    }

    template <class Visit>
    void for_each_pick(std::int64_t image, Visit visit) const {
        for (std::int64_t box = truth_.first[image]; box < truth_.first[image + 1]; ++box)
            for (std::int64_t k = 0; k < picked_[box]; ++k) visit(box, picks_[box * arguments_.kept() + k]);
    }

    void hold(std::int64_t cell, std::uint32_t box, float metric, float overlap) {
        holder_[cell] = box;
        metric_[cell] = metric;
        overlap_[cell] = overlap;
    }

    // Keeps of each box's anchors the topk2 of largest metric (spec section 5.6).
    void second_topk(std::int64_t image) {
        const std::int64_t first = image * arguments_.anchors;
        Holding* holdings = holdings_ + first;
        std::int64_t count = 0;
        for (std::int64_t cell = first; cell < first + arguments_.anchors; ++cell)
            if (holder_[cell] != NOBODY) holdings[count++] = {holder_[cell], rank_of(metric_[cell]), cell};
        std::sort(holdings, holdings + count, [](const Holding& a, const Holding& b) {
            if (a.box != b.box) return a.box < b.box;
            return a.metric != b.metric ? a.metric > b.metric : a.cell < b.cell;
        });
        for (std::int64_t i = 0, rank = 0; i < count; ++i) {
            rank = i > 0 && holdings[i].box == holdings[i - 1].box ? rank + 1 : 0;
            if (rank >= arguments_.topk2) holder_[holdings[i].cell] = NOBODY;
        }
    }

    // Replaces metrics by soft targets (spec section 5.7), and frees anchors that are not held after all. Returns the number held.
    std::int64_t weigh(std::int64_t image, float nan_carrier) {
        for (std::int64_t box = truth_.first[image]; box < truth_.first[image + 1]; ++box) best_[box] = {0, 0};
        std::int64_t held = 0;
        const std::int64_t first = image * arguments_.anchors;
        for (std::int64_t cell = first; cell < first + arguments_.anchors; ++cell) {
            if (holder_[cell] == NOBODY) continue;
            Best& best = best_[holder_[cell]];
            best = {std::max(best.metric, rank_of(metric_[cell])), std::max(best.overlap, rank_of(overlap_[cell]))};
        }
        for (std::int64_t cell = first; cell < first + arguments_.anchors; ++cell) {
            if (holder_[cell] == NOBODY) continue;
            const Best& best = best_[holder_[cell]];
            const float metric = metric_[cell];
            metric_[cell] = Geometry::soft_target(arguments_, metric, value_of(best.metric), value_of(best.overlap)) + nan_carrier;
            if (Geometry::holds(metric, metric_[cell])) ++held;
            else holder_[cell] = NOBODY;
        }
        return held;
    }

    std::int64_t list(Held& held) const {
        std::int64_t count = 0;
        for (std::int64_t image = 0; image < arguments_.images; ++image) {
            const std::int64_t end = count + held_by_image_[image];
            for (std::int64_t anchor = 0; count < end; ++anchor) {
                const std::int64_t cell = image * arguments_.anchors + anchor;
                if (holder_[cell] == NOBODY) continue;
                held.image[count] = image;
                held.anchor[count] = anchor;
                held.row[count] = truth_.row[holder_[cell]];
                held.weight[count++] = metric_[cell];
            }
        }
        return count;
    }

    const KernelArguments& arguments_;
    Anchors anchors_;
    GroundTruth<Geometry> truth_;
    Predicted<Geometry> predicted_;
    Contest contest_;
    MaskOverlaps masks_;
    Window* windows_;
    Pick* picks_;
    Holding* holdings_;
    std::int64_t *picked_, *held_by_image_;
    std::uint32_t *holder_, *pickers_;
    float *nan_carrier_, *metric_, *overlap_;
    Best* best_;
};

}  // namespace twinloss
