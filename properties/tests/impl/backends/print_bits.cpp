// A program that runs the kernels on a few batches of its own and prints a hash of the bits of every result: `test_emulated.py` compares what
// it prints where it is compiled for another processor. The numbers that it draws are exact in every dtype.
#include <cstdio>
#include <vector>

#include "entry.hpp"
#include "keypoint_terms.hpp"
#include "keypoints.hpp"
#include "oriented.hpp"
#include "semantic.hpp"
#include "upright.hpp"

using namespace twinloss;

namespace {

constexpr std::int64_t IMAGES = 3, CLASSES = 5, BINS = 8, ROWS = 14, POINTS = 5, POINT_NUMBERS = 3, MAP = 37;
constexpr std::int64_t SIDES_OF_LEVELS[] = {20, 10}, ANCHORS = 20 * 20 + 10 * 10;

std::uint32_t state = 1;

// A multiple of 1/64 from −range to range.
float draw(int range) {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int>(state >> 8) % (range * 64)) / 64 * (state & 128 ? 1 : -1);
}

template <class T>
std::vector<T> drawn(std::int64_t count, int range) {
    std::vector<T> numbers;
    for (std::int64_t i = 0; i < count; ++i) numbers.push_back(narrow<T>(draw(range)));
    return numbers;
}

void print(const char* name, const void* data, std::size_t bytes) {
    std::uint64_t hash = 14695981039346656037u;
    for (std::size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 1099511628211u;
    std::printf("%s %zu %016llx\n", name, bytes, static_cast<unsigned long long>(hash));
}
template <class T>
void print(const char* name, const std::vector<T>& numbers) {
    print(name, numbers.data(), numbers.size() * sizeof(T));
}

struct Batch {
    std::vector<std::int64_t> image, label;
    std::vector<float> box, keypoints, doubled;
    KernelArguments arguments{};

    explicit Batch(int numbers) {
        for (std::int64_t row = 0; row < ROWS; ++row) {
            image.push_back(row % IMAGES), label.push_back(row % CLASSES);
            for (int n = 0; n < 2; ++n) box.push_back(0.5f + draw(1) * 0.375f);
            for (int n = 0; n < 2; ++n) box.push_back(0.0625f + std::fabs(draw(1)) * 0.5f);
            if (numbers == 5) box.push_back(draw(row % 4 ? 3 : 4000));
        }
        for (std::int64_t k = 0; k < ROWS * POINTS; ++k)
            for (int n = 0; n < 3; ++n) keypoints.push_back(n < 2 ? 0.5f + draw(1) * 0.5f : static_cast<float>(k % 3));
        for (std::int64_t k = 0; k < POINTS; ++k) doubled.push_back(0.03125f * static_cast<float>(k + 1));
        KernelArguments& a = arguments;
        a.images = IMAGES, a.classes = CLASSES, a.bins = BINS, a.anchors = ANCHORS, a.levels = 2, a.rows = ROWS, a.threads = 1;
        for (int level = 0; level < 2; ++level)
            a.grid_rows[level] = a.grid_columns[level] = SIDES_OF_LEVELS[level], a.strides[level] = 8 << level;
        a.boxes_per_channel = a.scores_per_channel = a.kpts_per_channel = a.angle_per_image = ANCHORS;
        a.boxes_per_image = 4 * BINS * ANCHORS, a.scores_per_image = CLASSES * ANCHORS, a.kpts_per_image = POINTS * POINT_NUMBERS * ANCHORS;
        a.image = image.data(), a.label = label.data(), a.box = box.data(), a.keypoints = keypoints.data(), a.doubled = doubled.data();
        a.topk = 7, a.topk2 = 0, a.alpha = 0.5f, a.beta = 6.0f, a.assign_eps = 1e-9f, a.ciou_eps = 1e-7f, a.longest = BINS - 1.01f;
        a.gains[0] = 7.5f, a.gains[1] = 0.5f, a.gains[2] = 1.5f, a.gains[3] = 1.0f;
        a.overlap_decides = 1, a.probiou_eps = 1e-3f, a.term_floor = 0.25f, a.angle_scale = 2.0f;
        a.points = POINTS, a.point_numbers = POINT_NUMBERS, a.target_numbers = 3, a.point_factor = 2.0f, a.point_shift = 0.5f;
    }
};

struct Assigned {
    std::vector<std::int64_t> image, anchor, row;
    std::vector<float> weight;
    Held held;

    Assigned() : image(IMAGES * ANCHORS), anchor(image), row(image), weight(image.size()), held{image.data(), anchor.data(), row.data(), weight.data(), IMAGES * ANCHORS} {}
};

template <class Geometry, class T>
std::int64_t run_assignment(const Batch& batch, std::int32_t storage, Assigned& assigned) {
    std::vector<char> memory(static_cast<std::size_t>(scratch_of_assignment<Geometry>(batch.arguments)) + 64);
    char* aligned = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
    const std::int64_t count = assign<Geometry>(batch.arguments, storage, aligned, assigned.held);
    print("anchors", assigned.anchor.data(), static_cast<std::size_t>(count) * 8);
    print("weights", assigned.weight.data(), static_cast<std::size_t>(count) * 4);
    return count;
}

template <class Geometry, class T>
void run_boxes(std::int32_t storage, float alpha) {
    Batch batch(Geometry::ANGLES ? 5 : 4);
    batch.arguments.alpha = alpha;
    const auto boxes = drawn<T>(IMAGES * 4 * BINS * ANCHORS, 4), scores = drawn<T>(IMAGES * CLASSES * ANCHORS, 8);
    const auto angle = drawn<T>(IMAGES * ANCHORS, 10);
    batch.arguments.boxes = boxes.data(), batch.arguments.scores = scores.data(), batch.arguments.angle = angle.data();
    Assigned assigned;
    const std::int64_t count = run_assignment<Geometry, T>(batch, storage, assigned);
    std::vector<char> memory(static_cast<std::size_t>(scratch_of_terms<Geometry>(batch.arguments, count)) + 64);
    char* aligned = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
    std::vector<T> to_boxes(boxes.size()), to_scores(scores.size()), to_angle(angle.size());
    std::vector<float> terms(8);
    Gradients gradients{};
    for (double& upstream : gradients.upstream) upstream = 1;
    gradients.boxes = to_boxes.data(), gradients.scores = to_scores.data(), gradients.angle = Geometry::ANGLES ? to_angle.data() : nullptr;
    write_terms<Geometry>(batch.arguments, storage, aligned, assigned.held, count, terms.data(), gradients);
    print("terms", terms), print("by boxes", to_boxes), print("by scores", to_scores), print("by angle", to_angle);
}

template <class T>
void run_keypoints(std::int32_t storage) {
    Batch batch(4);
    const auto boxes = drawn<T>(IMAGES * 4 * BINS * ANCHORS, 4), scores = drawn<T>(IMAGES * CLASSES * ANCHORS, 8);
    const auto kpts = drawn<T>(IMAGES * POINTS * POINT_NUMBERS * ANCHORS, 3);
    batch.arguments.boxes = boxes.data(), batch.arguments.scores = scores.data(), batch.arguments.kpts = kpts.data();
    Assigned assigned;
    const std::int64_t count = run_assignment<Keypoints, T>(batch, storage, assigned);
    Scratch counting(nullptr);
    KeypointScratch(batch.arguments, count, counting);
    std::vector<char> memory(static_cast<std::size_t>(counting.used()) + 64);
    Scratch scratch(memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64);
    KeypointScratch of(batch.arguments, count, scratch);
    std::vector<float> columns(static_cast<std::size_t>(count * POINTS * POINT_NUMBERS)), slopes(columns.size());
    const KeypointSums sums = keypoint_terms<T>(batch.arguments, assigned.held, count, of, columns.data(), slopes.data());
    print("location", &sums.location, 8), print("visibility", &sums.visibility, 8), print("slopes", slopes);
}

template <class T>
void run_semantic() {
    const auto logits = drawn<T>(IMAGES * CLASSES * MAP * MAP, 8);
    std::vector<std::int32_t> map;
    for (std::int64_t pixel = 0; pixel < IMAGES * MAP * MAP; ++pixel) map.push_back(static_cast<std::int32_t>(pixel / 11 % (CLASSES + 1)) - 1);
    const SemanticArguments arguments{IMAGES, CLASSES, MAP, MAP, 1, logits.data(), CLASSES * MAP * MAP, MAP * MAP, MAP, map.data()};
    std::vector<SemanticSums> sums(IMAGES * CLASSES);
    const double term = semantic_term<T>(arguments, sums.data());
    std::vector<T> gradient(logits.size());
    semantic_gradient<T>(arguments, sums.data(), 1.0f, gradient.data());
    print("semantic", &term, 8), print("by semantic", gradient);
}

template <class T>
void run(std::int32_t storage) {
    std::printf("storage %d\n", storage);
    run_boxes<Upright, T>(storage, 0.5f);
    run_boxes<Upright, T>(storage, 1.0f);
    run_boxes<Oriented, T>(storage, 0.5f);
    run_keypoints<T>(storage);
    run_semantic<T>();
}

}  // namespace

int main() {
    run<float>(FLOAT32);
    run<Float16>(FLOAT16);
    run<BFloat16>(BFLOAT16);
}
