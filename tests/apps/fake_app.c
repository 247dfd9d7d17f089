/* SPDX-License-Identifier: MIT */
/* app.h over memory, driven by commands on standard input: an application runs as an ordinary
 * process with sanitizers, and the test decides every piece that arrives, every window and every
 * second that passes.
 *
 * Commands (numbers little endian, i: connection):
 *   C i           connect            D i n32 bytes   one piece of data arrives
 *   F i           the peer's FIN     R i             the peer resets
 *   W i n32       the window is n    T n32           n milliseconds pass
 *   O i           answers: state byte ('o'pen, 's'hut down, 'c'losed, 'a'borted), n32, bytes sent
 *   U n32 bytes   a datagram; answers n32, bytes of the reply (0: none)
 * A piece lives in a block of exactly its size, which moves at every call that names the socket, as
 * the contract of peek allows: reading beyond it or keeping it is seen by the address sanitizer. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/app.h>
#include <unikit/image/runtime/composition.h>

enum { SOCKETS = 256, TIMERS = 16, BIG = 300000 };

struct piece {
    struct piece *next;
    unsigned char *data;
    size_t length;
};

struct socket {
    struct kit_tcp tcp; /* first: the handle */
    kit_tcp_callback callback;
    void *argument;
    struct piece *first, **last;
    bool ended, reset, blocked;
    char state;
    size_t window;
    unsigned char *sent;
    size_t sent_length;
};

static struct socket sockets[SOCKETS], listener, *waiting;
static struct kit_timer *timers[TIMERS];
static uint64_t now_ns = KIT_NS_PER_S;
static kit_udp_callback udp_callback;
static void *udp_argument;
static struct kit_udp udp_socket;
static unsigned char *datagram, *reply;
static size_t datagram_length, reply_length;

static char big[BIG];
static const struct kit_file files[] = {
    {"a b/x.txt", "text/plain; charset=utf-8", "spaces\n", 7, 3},
    {"big.bin", "application/octet-stream", big, BIG, 0xfeedbeef},
    {"css/index.html", "text/html; charset=utf-8", "<p>css\n", 7, 2},
    {"empty", "application/octet-stream", "", 0, 9},
    {"index.html", "text/html; charset=utf-8", "<h1>hi</h1>\n", 12, 0x0123456789abcdef},
};
const struct kit_composition kit_composition = {
    .name = "fake", .files = files, .file_count = KIT_ARRAY_SIZE(files)};

void kit_panic(const char *message)
{
    fprintf(stderr, "panic: %s\n", message);
    abort();
}

void *kit_memory_alloc(size_t size, size_t align)
{
    (void)align;
    return malloc(size ? size : 1);
}

void kit_memory_free(void *block, size_t size, size_t align)
{
    (void)size;
    (void)align;
    free(block);
}

int kit_timer_start(struct kit_timer *timer, uint64_t delay_ns)
{
    kit_timer_stop(timer);
    for (size_t i = 0; i < TIMERS; i++)
        if (timers[i] == NULL) {
            timers[i] = timer;
            timer->deadline_ns = now_ns + delay_ns;
            return 0;
        }
    return KIT_ENOMEM;
}

bool kit_timer_stop(struct kit_timer *timer)
{
    for (size_t i = 0; i < TIMERS; i++)
        if (timers[i] == timer) {
            timers[i] = NULL;
            return true;
        }
    return false;
}

static struct socket *of(struct kit_tcp *tcp)
{
    struct socket *s = (struct socket *)tcp;
    if (s->state != 'o' && s->state != 's')
        kit_panic("a closed handle was used");
    return s;
}

/* Moves the first piece: pointers into it die. */
static void move(struct socket *s)
{
    struct piece *p = s->first;
    if (p == NULL)
        return;
    unsigned char *fresh = malloc(p->length);
    memcpy(fresh, p->data, p->length);
    free(p->data);
    p->data = fresh;
}

int kit_tcp_listen(uint16_t port, kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    (void)port;
    listener = (struct socket){.callback = callback, .argument = argument, .state = 'o'};
    *out = &listener.tcp;
    return 0;
}

struct kit_tcp *kit_tcp_accept(struct kit_tcp *tcp)
{
    (void)tcp;
    struct socket *s = waiting;
    waiting = NULL;
    return s ? &s->tcp : NULL;
}

void kit_tcp_set_callback(struct kit_tcp *tcp, kit_tcp_callback callback, void *argument)
{
    of(tcp)->callback = callback;
    of(tcp)->argument = argument;
}

int kit_tcp_send(struct kit_tcp *tcp, const void *data, size_t length)
{
    struct socket *s = of(tcp);
    size_t taken = length < s->window ? length : s->window;
    if (s->reset)
        return KIT_ERESET;
    if (s->state == 's')
        return KIT_ECLOSED;
    if (taken == 0 && length != 0) {
        s->blocked = true;
        return KIT_EAGAIN;
    }
    s->sent = realloc(s->sent, s->sent_length + taken + 1);
    memcpy(s->sent + s->sent_length, data, taken);
    s->sent_length += taken;
    s->window -= taken;
    move(s);
    return (int)taken;
}

int kit_tcp_peek(struct kit_tcp *tcp, const void **data)
{
    struct socket *s = of(tcp);
    move(s);
    if (s->first != NULL) {
        *data = s->first->data;
        return (int)s->first->length;
    }
    return s->reset ? KIT_ERESET : s->ended ? 0 : KIT_EAGAIN;
}

void kit_tcp_consume(struct kit_tcp *tcp, size_t length)
{
    struct socket *s = of(tcp);
    struct piece *p = s->first;
    if (length == 0)
        return;
    if (p == NULL || length > p->length)
        kit_panic("more was consumed than there is");
    memmove(p->data, p->data + length, p->length - length);
    p->length -= length;
    if (p->length != 0) {
        move(s);
        return;
    }
    s->first = p->next;
    if (s->first == NULL)
        s->last = &s->first;
    free(p->data);
    free(p);
}

int kit_tcp_shutdown(struct kit_tcp *tcp)
{
    of(tcp)->state = 's';
    return 0;
}

static void finish(struct kit_tcp *tcp, char state)
{
    struct socket *s = of(tcp);
    while (s->first != NULL)
        kit_tcp_consume(tcp, s->first->length);
    s->state = state;
}

void kit_tcp_close(struct kit_tcp *tcp)
{
    finish(tcp, 'c');
}

void kit_tcp_abort(struct kit_tcp *tcp)
{
    finish(tcp, 'a');
}

int kit_udp_open(uint16_t port, kit_udp_callback callback, void *argument, struct kit_udp **out)
{
    (void)port;
    udp_callback = callback;
    udp_argument = argument;
    *out = &udp_socket;
    return 0;
}

int kit_udp_receive(struct kit_udp *udp, struct kit_address *from, void *buffer, size_t length)
{
    (void)udp;
    if (datagram == NULL)
        return KIT_EAGAIN;
    *from = (struct kit_address){.bytes = {10, 0, 0, 1}, .port = 4000, .family = 4};
    memcpy(buffer, datagram, length < datagram_length ? length : datagram_length);
    free(datagram);
    datagram = NULL;
    return (int)datagram_length;
}

int kit_udp_send(struct kit_udp *udp, const struct kit_address *to, const void *data, size_t length)
{
    (void)udp;
    if (to->port != 4000)
        kit_panic("the reply goes elsewhere");
    reply = realloc(reply, length + 1);
    memcpy(reply, data, length);
    reply_length = length;
    return 0;
}

uint64_t kit_clock_now(void)
{
    return now_ns;
}

uint64_t kit_uptime(void)
{
    return now_ns;
}

uint64_t kit_clock_wall(void)
{
    return UINT64_C(784111777) * KIT_NS_PER_S + now_ns - KIT_NS_PER_S; /* RFC 9110's example */
}

void kit_log(const char *format, ...)
{
    (void)format;
}

uint64_t kit_app_option(const char *name)
{
    return name[0] == 'p' && name[1] == 'o' ? 80
           : name[0] == 'i'                 ? 30 * KIT_NS_PER_S
                                            : 10 * KIT_NS_PER_S;
}

const char *kit_platform_name(void)
{
    return "fake";
}

const char *kit_component_at(size_t index)
{
    return index == 0 ? "alloc.fake" : index == 1 ? "net.fake" : NULL;
}

void kit_statistics(struct kit_alloc_stats *memory, struct kit_sched_stats *tasks,
                    struct kit_net_stats *network)
{
    *memory = (struct kit_alloc_stats){.used = UINT64_MAX};
    *tasks = (struct kit_sched_stats){0};
    *network = (struct kit_net_stats){.frames_in = UINT64_MAX};
}

static void fire(struct socket *s, uint32_t events)
{
    if (s->state == 'o' || s->state == 's')
        s->callback(s->argument, &s->tcp, events);
}

static uint32_t read_number(void)
{
    unsigned char b[4];
    if (fread(b, 1, 4, stdin) != 4)
        exit(0);
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void write_bytes(const void *data, size_t length)
{
    unsigned char b[4] = {(unsigned char)length, (unsigned char)(length >> 8),
                          (unsigned char)(length >> 16), (unsigned char)(length >> 24)};
    fwrite(b, 1, 4, stdout);
    if (length != 0)
        fwrite(data, 1, length, stdout);
    fflush(stdout);
}

static void connect_socket(struct socket *s)
{
    if (s->state == 'o' || s->state == 's') { /* what was there before is gone */
        s->reset = true;
        fire(s, KIT_NET_ERROR);
    }
    free(s->sent);
    *s = (struct socket){.state = 'o', .window = SIZE_MAX, .callback = listener.callback};
    s->last = &s->first;
    waiting = s;
    fire(&listener, KIT_NET_ACCEPT);
}

static void deliver(struct socket *s)
{
    size_t length = read_number();
    struct piece *p = calloc(1, sizeof *p);
    p->length = length;
    p->data = malloc(length ? length : 1);
    if (fread(p->data, 1, length, stdin) != length)
        exit(0);
    if (length == 0 || (s->state != 'o' && s->state != 's')) {
        free(p->data);
        free(p);
        return;
    }
    *s->last = p;
    s->last = &p->next;
    fire(s, KIT_NET_READABLE);
}

static void pass(uint64_t ns)
{
    for (;;) {
        struct kit_timer *due = NULL;
        for (size_t i = 0; i < TIMERS; i++)
            if (timers[i] && timers[i]->deadline_ns <= now_ns + ns &&
                (due == NULL || timers[i]->deadline_ns < due->deadline_ns))
                due = timers[i];
        if (due == NULL)
            break;
        ns -= due->deadline_ns - now_ns;
        now_ns = due->deadline_ns;
        kit_timer_stop(due);
        due->run(due);
    }
    now_ns += ns;
}

static void exchange_datagram(void)
{
    datagram_length = read_number();
    datagram = malloc(datagram_length + 1);
    if (fread(datagram, 1, datagram_length, stdin) != datagram_length)
        exit(0);
    reply_length = 0;
    udp_callback(udp_argument, &udp_socket);
    write_bytes(reply, reply_length);
}

static void command(int what, struct socket *s)
{
    switch (what) {
    case 'C':
        connect_socket(s);
        break;
    case 'D':
        deliver(s);
        break;
    case 'F':
        s->ended = true;
        fire(s, KIT_NET_READABLE);
        break;
    case 'R':
        s->reset = true;
        fire(s, KIT_NET_ERROR);
        break;
    case 'W':
        s->window = read_number();
        if (s->blocked && s->window != 0) {
            s->blocked = false;
            fire(s, KIT_NET_WRITABLE);
        }
        break;
    case 'O':
        putchar(s->state);
        write_bytes(s->sent, s->sent_length);
        s->sent_length = 0;
        break;
    default:
        kit_panic("unknown command");
    }
}

int main(void)
{
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 2654435761u >> 13);
    int rc = init_application();
    for (int what; rc == 0 && (what = getchar()) != EOF;) {
        if (what == 'T')
            pass(read_number() * KIT_NS_PER_MS);
        else if (what == 'U')
            exchange_datagram();
        else
            command(what, &sockets[getchar() & (SOCKETS - 1)]);
    }
    return rc;
}
