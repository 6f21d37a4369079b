// The number of the current thread: OpenMP's, or 0 if the compiler has no OpenMP.
#pragma once

#ifdef _OPENMP
extern "C" int omp_get_thread_num();  // as in omp.h, which Apple's compiler lacks
#endif

namespace twinloss {

inline int thread_number() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

}  // namespace twinloss
