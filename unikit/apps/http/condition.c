/* SPDX-License-Identifier: MIT */
/* Conditional and range requests (RFC 9110, sections 13 and 14). */
#include "request.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool http_tag_listed(struct http_text list, struct http_text tag)
{
    const char *at = list.at, *end = list.at + list.length;
    if (list.at == NULL)
        return false;
    if (list.length == 1 && *at == '*')
        return true;
    while (at < end) {
        if (end - at >= 2 && at[0] == 'W' && at[1] == '/')
            at += 2;
        if (at == end || *at != '"')
            return false; /* not a list of entity tags: the field is ignored */
        const char *start = at++;
        while (at < end && *at != '"')
            at++;
        if (at == end)
            return false;
        at++;
        if ((size_t)(at - start) == tag.length && memcmp(start, tag.at, tag.length) == 0)
            return true;
        while (at < end && (*at == ' ' || *at == '\t' || *at == ','))
            at++;
    }
    return false;
}

/* Numbers too large for 64 bits stand for «very large»: they are clipped. */
static const char *read_number(const char *at, const char *end, uint64_t *out)
{
    uint64_t value = 0;
    for (; at < end && is_digit(*at); at++)
        value = value > UINT64_MAX / 10 - 1 ? UINT64_MAX / 10 : value * 10 + (uint64_t)(*at - '0');
    *out = value;
    return at;
}

enum http_range http_range(struct http_text field, uint64_t size, uint64_t *first, uint64_t *last)
{
    const char *at = field.at, *end = field.at + field.length;
    uint64_t from, to;
    if (field.at == NULL || field.length < 8 || memcmp(at, "bytes=", 6) != 0)
        return HTTP_RANGE_WHOLE;
    at += 6;
    if (*at == '-') { /* the last so many bytes */
        const char *digits = at + 1;
        at = read_number(digits, end, &to);
        if (at == digits || at != end)
            return HTTP_RANGE_WHOLE;
        if (to == 0 || size == 0)
            return HTTP_RANGE_UNSATISFIABLE;
        *first = to < size ? size - to : 0;
        *last = size - 1;
        return HTTP_RANGE_PART;
    }
    if (!is_digit(*at))
        return HTTP_RANGE_WHOLE;
    at = read_number(at, end, &from);
    if (at == end || *at++ != '-')
        return HTTP_RANGE_WHOLE;
    to = UINT64_MAX;
    if (at < end) {
        if (!is_digit(*at))
            return HTTP_RANGE_WHOLE;
        at = read_number(at, end, &to);
        if (at != end || to < from)
            return HTTP_RANGE_WHOLE;
    }
    if (from >= size)
        return HTTP_RANGE_UNSATISFIABLE;
    *first = from;
    *last = to < size ? to : size - 1;
    return HTTP_RANGE_PART;
}
