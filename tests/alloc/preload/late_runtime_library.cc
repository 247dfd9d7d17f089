// SPDX-License-Identifier: MIT
// Part of late_runtime.c: asks for too much memory and catches what comes of it.
#include <cstdint>
#include <new>

static volatile std::size_t huge = PTRDIFF_MAX;

extern "C" int catches()
{
    try {
        ::operator delete(::operator new(huge));
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}
