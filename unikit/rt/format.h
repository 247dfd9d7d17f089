/* SPDX-License-Identifier: MIT */
/* Formatting into a caller's buffer: %s %c %d %i %u %x %X %p %% with the modifiers l, ll, z and j,
 * a width, 0 and - flags, and a precision for %s. No floating point, no allocation. */
#ifndef KIT_RT_FORMAT_H
#define KIT_RT_FORMAT_H

#include <stdarg.h>
#include <unikit/rt/types.h>

/* Writes at most `size` bytes, NUL included (none if size is 0). Returns the length that the whole
 * text has, NUL excluded: it was cut if that is >= size. */
size_t kit_format(char *buffer, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
size_t kit_vformat(char *buffer, size_t size, const char *format, va_list arguments);

#endif
