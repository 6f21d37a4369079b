// The instruction sets that this machine can run: the processor has them, and the operating system saves their registers. Compiled for the
// baseline, as a library of its own, so that it may be asked on any machine.
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

extern "C" {

// Bits: 1 AVX2 with F16C; 2 AVX-512 F, BW, DQ and VL.
__attribute__((visibility("default"))) std::int32_t twinloss_processor() {
    std::int32_t found = 0;
#if defined(__x86_64__)
    constexpr std::uint32_t XSAVE = 1u << 27, AVX = 1u << 28, F16C = 1u << 29;                     // leaf 1, ecx
    constexpr std::uint32_t AVX2 = 1u << 5, AVX512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // leaf 7, ebx
    constexpr std::uint32_t YMM = 0x06, ZMM = 0xe6;                                                // registers that are saved
    std::uint32_t eax, ebx, ecx, edx, saved, high;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return found;
    constexpr std::uint32_t NEEDED = XSAVE | AVX | F16C;
    if ((ecx & NEEDED) != NEEDED || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return found;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if ((saved & YMM) != YMM || !(ebx & AVX2)) return found;
    found = 1;
    if ((saved & ZMM) == ZMM && (ebx & AVX512) == AVX512) found |= 2;
#endif
    return found;
}
}
