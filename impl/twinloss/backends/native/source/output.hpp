// Writes large results past the caches, which saves reading their memory before it is overwritten.
//
// A store into a line that is in no cache makes the processor read the line first: of a gradient that is larger than the caches, three bytes
// move where two would do. Numbers are therefore collected in a block that stays in the first-level cache, and copied out whole lines at a
// time. Small results go through the caches, where whoever reads them next finds them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace twinloss {

class Output {
   public:
    static constexpr std::int64_t BLOCK = 2048;     // numbers that are collected before they are copied out
    static constexpr std::int64_t LARGE = 8 << 20;  // bytes of a result beyond what a core's caches keep for its reader

    explicit Output(std::int64_t bytes) : past_caches_(bytes >= LARGE) {}

    template <class T>
    void copy(T* to, const T* from, std::int64_t count) const {
        copy_bytes(reinterpret_cast<char*>(to), reinterpret_cast<const char*>(from), count * static_cast<std::int64_t>(sizeof(T)));
    }

    // Lets other threads see what this one has written; every thread calls it once, at its end.
    void finish() const {
#ifdef __SSE2__
        if (past_caches_) _mm_sfence();
#endif
    }

   private:
    static constexpr std::int64_t LINE = 64;

#ifdef __SSE2__
    static void stream_line(char* to, const char* from) {
#if defined(__AVX512F__)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX__)
        for (int at = 0; at < LINE; at += 32)
            _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at)));
#else
        for (int at = 0; at < LINE; at += 16)
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + at), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)));
#endif
    }
#endif

    void copy_bytes(char* to, const char* from, std::int64_t bytes) const {
#ifdef __SSE2__
        if (past_caches_) {
            const std::int64_t head = std::min(bytes, static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) % LINE));
            std::memcpy(to, from, static_cast<std::size_t>(head));
            const std::int64_t end = head + (bytes - head) / LINE * LINE;
            for (std::int64_t at = head; at < end; at += LINE) stream_line(to + at, from + at);
            to += end, from += end, bytes -= end;
        }
#endif
        std::memcpy(to, from, static_cast<std::size_t>(bytes));
    }

    bool past_caches_;
};

}  // namespace twinloss
