// OpenMP where the compiler has it; without it, one thread.
#pragma once

#ifdef _OPENMP
#include <omp.h>
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
