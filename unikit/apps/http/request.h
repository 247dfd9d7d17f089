/* SPDX-License-Identifier: MIT */
/* The request side of HTTP/1.1 (RFC 9110, 9112): pure functions over bytes from outside. */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include <unikit/rt/types.h>

enum {
    HTTP_HEAD_MAX = 8192,   /* request line and fields: beyond it 431 */
    HTTP_TARGET_MAX = 2048, /* beyond it 414 */
    HTTP_FIELDS_MAX = 100,
    HTTP_PATH_MAX = 1024, /* decoded; beyond it 414 */
    HTTP_INDEX_ROOM = 11  /* behind the path there is room for /index.html */
};

struct http_text {
    const char *at; /* NULL: absent */
    size_t length;
};

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_OTHER };

struct http_request {
    enum http_method method;
    bool http_1_0;
    bool keep_alive;
    uint64_t content_length; /* of a body that follows the head */
    struct http_text if_none_match;
    struct http_text if_range;
    struct http_text range;
    /* Decoded, without dot segments, empty segments and the leading slash: «css/site.css». */
    size_t path_length;
    bool folder; /* the target ended in a slash (or was only one) */
    char path[HTTP_PATH_MAX + HTTP_INDEX_ROOM];
};

/* Where the head ends (behind its empty line), or 0: not in these bytes. `scanned` is how many of
 * them an earlier call has seen; it is brought up to date. */
size_t http_head_end(const char *data, size_t length, size_t *scanned);

/* Parses a head of `length` bytes, its empty line included. 0, or the status that answers it (400,
 * 414, 431, 501, 505); then only method, http_1_0 and keep_alive (false) are defined. Texts point
 * into data. */
int http_parse(const char *data, size_t length, struct http_request *out);

/* Whether an If-None-Match list names this entity tag, quotes included (weak comparison, RFC 9110,
 * section 8.8.3.2). */
bool http_tag_listed(struct http_text list, struct http_text tag);

enum http_range { HTTP_RANGE_WHOLE, HTTP_RANGE_PART, HTTP_RANGE_UNSATISFIABLE };

/* What a Range field asks of a representation of `size` bytes. Anything but one well-formed byte
 * range is ignored, as section 14.2 allows. PART: bytes first ... last, both included. */
enum http_range http_range(struct http_text field, uint64_t size, uint64_t *first, uint64_t *last);

#endif
