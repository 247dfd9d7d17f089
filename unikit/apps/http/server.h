/* SPDX-License-Identifier: MIT */
/* What the files of the web server share: a connection, and how its answer is put together. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "request.h"

#include <unikit/app.h>

enum {
    HTTP_ANSWER_ROOM = 768,     /* an answer's head, and a short body of ours behind it */
    HTTP_DISCARD_MAX = 1 << 16, /* a longer request body ends the connection */
    HTTP_LOCATION_MAX = 300
};

/* What is being answered. `text` is sent first, then `body`. */
struct http_answer {
    const unsigned char *body;
    size_t body_left;
    char *page; /* a body of our own making: freed when sent */
    size_t page_size;
    size_t text_at;
    size_t text_length;
    uint64_t discard; /* bytes of the request's body, which nobody wants */
    bool close;       /* the last answer on this connection */
    bool head_only;   /* the request was HEAD */
    bool http_1_0;    /* ... or of a peer that does not keep alive by itself */
    char text[HTTP_ANSWER_ROOM];
};

struct http_counters {
    uint64_t requests;
    uint64_t errors; /* answers from 400 on */
    uint64_t timeouts;
    uint64_t connections;
    uint32_t open;
};

extern struct http_counters http_counters;

/* Builds the heads of all packed files once. 0 or KIT_ENOMEM. */
int http_prepare(void);
/* Answers a complete request head. */
void http_answer_request(struct http_answer *answer, const char *head, size_t length);
/* Answers with a status of 400 or above and closes. */
void http_answer_error(struct http_answer *answer, int status);
/* A page of `kit_memory_alloc(*size, 0)` with *length bytes used; NULL: out of memory. */
char *http_status_page(bool json, size_t *size, size_t *length);
/* «Sun, 06 Nov 1994 08:49:37 GMT» into 30 bytes. */
void http_date(char *out, uint64_t seconds);

#endif
