/* SPDX-License-Identifier: MIT */
/* A web server: connections and their life.
 *
 * A connection answers one request after the other within the callback that brings it. The common
 * case allocates and copies nothing but the answer's first two kilobytes: the head is parsed where
 * the stack received it, the rest of a file is sent from where it is packed. A request that comes
 * in pieces is gathered in a buffer of its own. While an answer waits for the peer's window no
 * further request is read, so a peer that does not read costs a bounded amount.
 *
 * Deadlines are counted in seconds by one timer, which runs only while there are connections. */
#include "server.h"

#include <unikit/rt/list.h>

enum { FIRST_PIECE = 2048, LINGER_S = 2 };

struct connection {
    struct kit_list link;
    struct kit_tcp *tcp;
    char *held; /* HTTP_HEAD_MAX bytes: the beginning of a request; NULL: none */
    size_t held_length;
    size_t scanned;
    uint32_t expires; /* second at which patience ends */
    bool lingering;   /* all is sent: waits for the peer's end, throwing away what comes */
    struct http_answer answer;
};

static struct {
    struct kit_tcp *listener;
    struct kit_list connections;
    struct kit_timer timer;
    uint32_t second;
    uint32_t idle_s;
    uint32_t patience_s;
} server;

static void grant(struct connection *c, uint32_t seconds)
{
    c->expires = server.second + seconds + 1; /* the present second is partly over */
}

static void free_page(struct http_answer *answer)
{
    if (answer->page != NULL)
        kit_memory_free(answer->page, answer->page_size, 0);
    answer->page = NULL;
}

static void free_held(struct connection *c)
{
    if (c->held != NULL)
        kit_memory_free(c->held, HTTP_HEAD_MAX, 0);
    c->held = NULL;
    c->held_length = c->scanned = 0;
}

/* Ends a connection; `c` is gone afterwards. */
static void drop(struct connection *c, bool in_good_order)
{
    if (in_good_order)
        kit_tcp_close(c->tcp);
    else
        kit_tcp_abort(c->tcp);
    free_page(&c->answer);
    free_held(c);
    kit_list_remove(&c->link);
    http_counters.open--;
    kit_memory_free(c, sizeof *c, alignof(struct connection));
}

/* ---- sending
 * ------------------------------------------------------------------------------------- */

static bool pending(const struct http_answer *answer)
{
    return answer->text_at < answer->text_length || answer->body_left != 0;
}

/* One send: text and the beginning of the body together, so that a small answer is one segment;
 * after the text, straight from the body. As kit_tcp_send. */
static int send_piece(struct kit_tcp *tcp, struct http_answer *answer)
{
    unsigned char piece[FIRST_PIECE];
    size_t text_left = answer->text_length - answer->text_at;
    if (text_left == 0) {
        int taken = kit_tcp_send(tcp, answer->body, answer->body_left);
        if (taken > 0) {
            answer->body += taken;
            answer->body_left -= (size_t)taken;
        }
        return taken;
    }
    size_t room = sizeof piece - text_left;
    size_t body = answer->body_left < room ? answer->body_left : room;
    memcpy(piece, answer->text + answer->text_at, text_left);
    if (body != 0)
        memcpy(piece + text_left, answer->body, body);
    int taken = kit_tcp_send(tcp, piece, text_left + body);
    if (taken > 0) {
        size_t of_text = (size_t)taken < text_left ? (size_t)taken : text_left;
        answer->text_at += of_text;
        answer->body += (size_t)taken - of_text;
        answer->body_left -= (size_t)taken - of_text;
    }
    return taken;
}

/* Sends what the window takes. 0: all is sent; KIT_EAGAIN: an event will follow; else an error. */
static int flush(struct connection *c)
{
    struct http_answer *answer = &c->answer;
    if (!pending(answer))
        return 0;
    while (pending(answer)) {
        int taken = send_piece(c->tcp, answer);
        if (taken < 0)
            return taken;
        grant(c, server.idle_s); /* there was progress */
    }
    free_page(answer);
    answer->text_at = answer->text_length = 0;
    return 0;
}

/* ---- receiving
 * ----------------------------------------------------------------------------------- */

/* Drops what has come of a request's body. */
static void discard_body(struct connection *c, size_t length)
{
    size_t taken = c->answer.discard < length ? (size_t)c->answer.discard : length;
    kit_tcp_consume(c->tcp, taken);
    c->answer.discard -= taken;
}

/* Adds received bytes to the held beginning of a request and answers it when it is complete.
 * 1: answered; 0: more is needed; KIT_ENOMEM. */
__attribute__((cold)) static int hold(struct connection *c, const char *data, size_t length)
{
    if (c->held == NULL) {
        c->held = kit_memory_alloc(HTTP_HEAD_MAX, 0);
        if (c->held == NULL)
            return KIT_ENOMEM;
        grant(c, server.patience_s); /* for the whole head: trickling does not extend it */
    }
    if (c->held_length == 1 && c->held[0] == '\r' && *data == '\n') {
        kit_tcp_consume(c->tcp, 1); /* an empty line before the request, in two pieces */
        free_held(c);
        return 0;
    }
    size_t before = c->held_length, room = HTTP_HEAD_MAX - before;
    size_t taken = length < room ? length : room;
    memcpy(c->held + before, data, taken);
    c->held_length += taken;
    size_t end = http_head_end(c->held, c->held_length, &c->scanned);
    kit_tcp_consume(c->tcp, end != 0 ? end - before : taken);
    if (end == 0 && c->held_length < HTTP_HEAD_MAX)
        return 0;
    if (end != 0) {
        http_answer_request(&c->answer, c->held, end);
    } else {
        bool has_line = false;
        for (size_t i = 0; i < HTTP_TARGET_MAX + 16 && !has_line; i++)
            has_line = c->held[i] == '\n';
        http_counters.requests++;
        http_answer_error(&c->answer, has_line ? 431 : 414);
    }
    free_held(c);
    return 1;
}

/* Answers the next request if it is there. 1: answered; 0: nothing yet; negative: the end. */
static int next_request(struct connection *c)
{
    for (;;) {
        const void *piece;
        int got = kit_tcp_peek(c->tcp, &piece);
        if (got <= 0)
            return got == KIT_EAGAIN ? 0 : got == 0 ? KIT_ECLOSED : got;
        const char *data = piece;
        size_t length = (size_t)got;
        if (c->answer.discard != 0) {
            discard_body(c, length);
            continue;
        }
        if (c->held != NULL) {
            int rc = hold(c, data, length);
            if (rc != 0)
                return rc;
            continue;
        }
        if (length >= 2 && data[0] == '\r' && data[1] == '\n') { /* RFC 9112, section 2.2 */
            kit_tcp_consume(c->tcp, 2);
            continue;
        }
        size_t scanned = 0;
        size_t end = http_head_end(data, length < HTTP_HEAD_MAX ? length : HTTP_HEAD_MAX, &scanned);
        if (end != 0) {
            http_answer_request(&c->answer, data, end);
            kit_tcp_consume(c->tcp, end);
            return 1;
        }
        int rc = hold(c, data, length);
        if (rc != 0)
            return rc;
    }
}

/* Throws away what comes until the peer ends: closing at once would answer late data by a reset,
 * which can destroy our last answer on its way (RFC 9112, section 9.6). */
__attribute__((cold)) static void linger(struct connection *c)
{
    const void *data;
    int got;
    while ((got = kit_tcp_peek(c->tcp, &data)) > 0)
        kit_tcp_consume(c->tcp, (size_t)got);
    if (got != KIT_EAGAIN)
        drop(c, got == 0);
}

static void advance(struct connection *c)
{
    while (!c->lingering) {
        int rc = flush(c);
        if (rc == KIT_EAGAIN)
            return;
        if (rc == 0 && c->answer.close) {
            c->lingering = true;
            grant(c, LINGER_S);
            kit_tcp_shutdown(c->tcp);
            break;
        }
        if (rc == 0)
            rc = next_request(c);
        if (rc < 0) {
            drop(c, rc == KIT_ECLOSED);
            return;
        }
        if (rc == 0)
            return;
    }
    linger(c);
}

static void on_connection(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct connection *c = argument;
    (void)tcp;
    if (events & KIT_NET_ERROR)
        drop(c, false);
    else
        advance(c);
}

/* ---- time
 * ------------------------------------------------------------------------------------------ */

__attribute__((cold)) static void expire(struct connection *c)
{
    http_counters.timeouts++;
    if (c->held == NULL) {
        drop(c, !pending(&c->answer) && !c->lingering);
        return;
    }
    free_held(c);
    http_answer_error(&c->answer, 408);
    advance(c);
}

static void on_second(struct kit_timer *timer)
{
    server.second++;
    struct kit_list *next;
    for (struct kit_list *at = server.connections.next; at != &server.connections; at = next) {
        struct connection *c = KIT_CONTAINER_OF(at, struct connection, link);
        next = at->next;
        if ((int32_t)(server.second - c->expires) >= 0)
            expire(c);
    }
    if (!kit_list_empty(&server.connections) && kit_timer_start(timer, KIT_NS_PER_S) != 0)
        kit_log("http: out of memory: connections are not timed any more");
}

/* ---- start
 * ----------------------------------------------------------------------------------------- */

static void on_listener(void *argument, struct kit_tcp *listener, uint32_t events)
{
    struct kit_tcp *tcp;
    (void)argument;
    (void)events;
    while ((tcp = kit_tcp_accept(listener)) != NULL) {
        struct connection *c = kit_memory_alloc(sizeof *c, alignof(struct connection));
        if (c == NULL) {
            kit_tcp_abort(tcp);
            continue;
        }
        memset(c, 0, offsetof(struct connection, answer) + offsetof(struct http_answer, text));
        c->tcp = tcp;
        if (kit_list_empty(&server.connections))
            kit_timer_start(&server.timer, KIT_NS_PER_S);
        kit_list_push_back(&server.connections, &c->link);
        http_counters.connections++;
        http_counters.open++;
        grant(c, server.idle_s);
        kit_tcp_set_callback(tcp, on_connection, c);
        advance(c);
    }
}

__attribute__((cold)) int init_application(void)
{
    uint16_t port = (uint16_t)kit_app_option("port");
    server.idle_s = (uint32_t)(kit_app_option("idle") / KIT_NS_PER_S);
    server.patience_s = (uint32_t)(kit_app_option("patience") / KIT_NS_PER_S);
    server.timer.run = on_second;
    kit_list_init(&server.connections);
    int rc = http_prepare();
    if (rc == 0)
        rc = kit_tcp_listen(port, on_listener, NULL, &server.listener);
    if (rc != 0) {
        kit_log("http: cannot listen on port %u: %s", port,
                rc == KIT_EEXIST ? "it is taken" : "out of memory");
        return 1;
    }
    kit_log("http: listening on %u", port);
    return 0;
}
