/* SPDX-License-Identifier: MIT */
/* Gates; see host_gate.h. All gates of the process are in one list, for fork and thread exit. */
#include <pthread.h>
#include <stdlib.h>

#include <unikit/alloc/host_gate.h>
#include <unikit/alloc/host_shared.h>
#include <unikit/ffi/hooks/guard.h>

/* What a call uses until gate_leave. */
struct entry {
    struct kit_alloc *inner; /* never NULL */
    bool locked;
};

/* A thread's face. */
struct holder {
    struct holder *next;
    struct kit_alloc *face;
};

struct gate {
    struct kit_alloc alloc;
    struct kit_alloc *inner;
    int kind;
    struct kit_shared *shared;
    pthread_mutex_t mutex; /* LOCK: around each call; FACES: around attach, detach and the first
                            * face, which serves calls that see the whole allocator */
    pthread_key_t key;
    struct holder *holders;
    struct gate *next;
};

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct gate *gates;
static const struct kit_alloc_ops gate_ops;

static struct gate *gate_of(const struct kit_alloc *a)
{
    return (struct gate *)(uintptr_t)a;
}

/* ---- faces --------------------------------------------------------------------------------- */

/* The thread ends. Its holder may be gone with its gate: the list is what is true. */
static void gate_thread_ends(void *value)
{
    pthread_mutex_lock(&list_mutex);
    for (struct gate *gate = gates; gate; gate = gate->next) {
        for (struct holder **link = &gate->holders; *link; link = &(*link)->next) {
            struct holder *holder = *link;
            if (holder != value)
                continue;
            *link = holder->next;
            pthread_mutex_lock(&gate->mutex);
            kit_alloc_detach(holder->face);
            pthread_mutex_unlock(&gate->mutex);
            free(holder);
            pthread_mutex_unlock(&list_mutex);
            return;
        }
    }
    pthread_mutex_unlock(&list_mutex);
}

/* A face for this thread; NULL: no memory for one. */
static struct kit_alloc *gate_attach(struct gate *gate)
{
    struct holder *holder = malloc(sizeof *holder);
    if (!holder)
        return NULL;
    pthread_mutex_lock(&list_mutex);
    pthread_mutex_lock(&gate->mutex);
    int rc = kit_alloc_attach(gate->inner, &holder->face);
    pthread_mutex_unlock(&gate->mutex);
    if (rc == 0) {
        holder->next = gate->holders;
        gate->holders = holder;
    }
    pthread_mutex_unlock(&list_mutex);
    if (rc != 0 || pthread_setspecific(gate->key, holder) != 0) {
        if (rc == 0)
            gate_thread_ends(holder);
        else
            free(holder);
        return NULL;
    }
    return holder->face;
}

/* ---- entering and leaving ------------------------------------------------------------------- */

static struct entry gate_enter_whole(struct gate *gate)
{
    if (gate->kind == KIT_GATE_SHARED)
        kit_shared_enter(gate->shared);
    else
        pthread_mutex_lock(&gate->mutex);
    return (struct entry){gate->inner, true};
}

static struct entry gate_enter(struct gate *gate)
{
    if (gate->kind == KIT_GATE_FACES) {
        struct holder *holder = pthread_getspecific(gate->key);
        struct kit_alloc *face = holder ? holder->face : gate_attach(gate);
        if (face)
            return (struct entry){face, false};
    }
    return gate_enter_whole(gate); /* without memory for a face: the first one, in turn */
}

static void gate_leave(struct gate *gate, struct entry entry)
{
    if (!entry.locked)
        return;
    if (gate->kind == KIT_GATE_SHARED)
        kit_shared_leave(gate->shared);
    else
        pthread_mutex_unlock(&gate->mutex);
}

/* A call panicked: leaves, and passes the panic on to the guard outside. */
static _Noreturn void gate_abandon(struct gate *gate, struct entry entry)
{
    if (gate->kind == KIT_GATE_SHARED)
        kit_shared_abandon(gate->shared);
    else
        gate_leave(gate, entry);
    longjmp((*kit_host_guards())->target, 1);
}

/* Without a guard outside a panic ends the process, and nobody will miss the lock. */
#define GATED(gate, enter, call)                                                                   \
    struct entry entry = enter(gate);                                                              \
    if (entry.locked && *kit_host_guards()) {                                                      \
        KIT_GUARDED(call, gate_abandon(gate, entry));                                              \
    } else {                                                                                       \
        call;                                                                                      \
    }                                                                                              \
    gate_leave(gate, entry)

static void *gate_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    void *block;
    GATED(gate_of(a), gate_enter, block = kit_alloc_alloc(entry.inner, size, align));
    return block;
}

static void gate_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    GATED(gate_of(a), gate_enter, kit_alloc_free(entry.inner, block, size, align));
}

static void *gate_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    void *moved;
    GATED(gate_of(a), gate_enter,
          moved = kit_alloc_realloc(entry.inner, block, old_size, new_size, align));
    return moved;
}

static size_t gate_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    size_t usable;
    GATED(gate_of(a), gate_enter, usable = kit_alloc_usable_size(entry.inner, block, size));
    return usable;
}

static void gate_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    GATED(gate_of(a), gate_enter_whole, kit_alloc_stats(entry.inner, out));
}

static int gate_check(const struct kit_alloc *a)
{
    int rc;
    GATED(gate_of(a), gate_enter_whole, rc = kit_alloc_check(entry.inner));
    return rc;
}

static bool gate_owns(const struct kit_alloc *a, const void *block)
{
    bool known;
    GATED(gate_of(a), gate_enter_whole, known = kit_alloc_owns(entry.inner, block));
    return known;
}

static int gate_walk(const struct kit_alloc *a,
                     int (*visit)(void *argument, void *block, size_t size, bool used),
                     void *argument)
{
    int rc;
    GATED(gate_of(a), gate_enter_whole, rc = kit_alloc_walk(entry.inner, visit, argument));
    return rc;
}

static int gate_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    int rc;
    GATED(gate_of(a), gate_enter_whole, rc = kit_alloc_add_region(entry.inner, memory, size));
    return rc;
}

static size_t gate_mark(const struct kit_alloc *a)
{
    size_t mark;
    GATED(gate_of(a), gate_enter_whole, mark = kit_alloc_mark(entry.inner));
    return mark;
}

static void gate_release(struct kit_alloc *a, size_t mark)
{
    GATED(gate_of(a), gate_enter_whole, kit_alloc_release(entry.inner, mark));
}

static void *gate_zeroed(struct kit_alloc *a, size_t size, size_t align)
{
    void *block;
    GATED(gate_of(a), gate_enter, block = kit_alloc_zeroed(entry.inner, size, align));
    return block;
}

static bool gate_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                        size_t align)
{
    bool done;
    GATED(gate_of(a), gate_enter,
          done = kit_alloc_resize(entry.inner, block, old_size, new_size, align));
    return done;
}

static size_t gate_tick(struct kit_alloc *a)
{
    size_t given;
    GATED(gate_of(a), gate_enter, given = kit_alloc_tick(entry.inner));
    return given;
}

static size_t gate_trim(struct kit_alloc *a, size_t keep)
{
    size_t given;
    GATED(gate_of(a), gate_enter, given = kit_alloc_trim(entry.inner, keep));
    return given;
}

/* Faces and page sources are the gate's own business. */
static const struct kit_alloc_ops gate_ops = {
    .alloc = gate_alloc,
    .free = gate_free,
    .realloc = gate_realloc,
    .usable_size = gate_usable_size,
    .stats = gate_stats,
    .check = gate_check,
    .owns = gate_owns,
    .walk = gate_walk,
    .add_region = gate_add_region,
    .mark = gate_mark,
    .release = gate_release,
    .zeroed = gate_zeroed,
    .resize = gate_resize,
    .tick = gate_tick,
    .trim = gate_trim,
};

void kit_gate_hold(struct kit_alloc *gate)
{
    gate_enter_whole(gate_of(gate));
}

void kit_gate_release(struct kit_alloc *gate)
{
    gate_leave(gate_of(gate), (struct entry){gate_of(gate)->inner, true});
}

/* ---- fork ----------------------------------------------------------------------------------- */

static void gate_before_fork(void)
{
    pthread_mutex_lock(&list_mutex);
    for (struct gate *gate = gates; gate; gate = gate->next) {
        if (gate->kind == KIT_GATE_SHARED)
            continue; /* its memory is no copy in the child */
        pthread_mutex_lock(&gate->mutex);
        if (gate->kind == KIT_GATE_FACES && gate->inner->ops->hold)
            kit_alloc_hold(gate->inner, true);
    }
}

static void gate_after_fork(void)
{
    for (struct gate *gate = gates; gate; gate = gate->next) {
        if (gate->kind == KIT_GATE_SHARED)
            continue;
        if (gate->kind == KIT_GATE_FACES && gate->inner->ops->hold)
            kit_alloc_hold(gate->inner, false);
        pthread_mutex_unlock(&gate->mutex);
    }
    pthread_mutex_unlock(&list_mutex);
}

static void gate_watch_forks(void)
{
    pthread_atfork(gate_before_fork, gate_after_fork, gate_after_fork);
}

/* ---- life ----------------------------------------------------------------------------------- */

int kit_gate_new(struct kit_alloc *inner, int kind, struct kit_shared *shared,
                 struct kit_alloc **out)
{
    struct gate *gate = calloc(1, sizeof *gate);
    if (!gate)
        return KIT_ENOMEM;
    pthread_once(&once, gate_watch_forks);
    gate->inner = inner;
    gate->kind = kind;
    gate->shared = shared;
    pthread_mutex_init(&gate->mutex, NULL);
    if (kind == KIT_GATE_FACES && pthread_key_create(&gate->key, gate_thread_ends) != 0) {
        free(gate);
        return KIT_ENOMEM;
    }
    KIT_ALLOC_BIND(&gate->alloc, &gate_ops);
    pthread_mutex_lock(&list_mutex);
    gate->next = gates;
    gates = gate;
    pthread_mutex_unlock(&list_mutex);
    *out = &gate->alloc;
    return 0;
}

void kit_gate_delete(struct kit_alloc *a)
{
    struct gate *gate = gate_of(a);
    pthread_mutex_lock(&list_mutex);
    struct gate **link = &gates;
    while (*link != gate)
        link = &(*link)->next;
    *link = gate->next;
    if (gate->kind == KIT_GATE_FACES)
        pthread_key_delete(gate->key);
    while (gate->holders) {
        struct holder *holder = gate->holders;
        gate->holders = holder->next;
        free(holder);
    }
    pthread_mutex_unlock(&list_mutex);
    pthread_mutex_destroy(&gate->mutex);
    free(gate);
}
