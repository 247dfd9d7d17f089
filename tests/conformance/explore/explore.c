/* SPDX-License-Identifier: MIT */
/* The explorer: depth first over all choices, each way run from the beginning. A state that was
 * seen before is left at once: a state is the scenario's memory, the store buffers, and of each
 * thread its stack, on which its registers lie, too, and what it is about to do.
 *
 * A load of a word that nobody ever writes is no choice. Which words those are is found out: when a
 * write to a further word turns up, the search begins anew and knows of it. */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/rt/x86_64/switch.h>

enum { STACK = 8192, BUFFER = 16, DEPTH = 2000, WORDS = 64 };

enum kind { LOAD, STORE, SWAP, AND, CAS, FENCE, WAIT, START };

struct operation {
    enum kind kind;
    void *at;
    size_t size;
    uint64_t value;
    uint64_t expected;
    bool drains; /* waits until the buffer is empty */
    uint64_t result;
};

struct write {
    void *at;
    size_t size;
    uint64_t value;
};

struct thread {
    void *context;
    void (*run)(void);
    bool ended;
    struct operation next;
    struct write buffer[BUFFER];
    unsigned writes;
    alignas(64) char stack[STACK];
};

static struct thread threads[EXPLORE_THREADS];
static unsigned count;
static struct thread *self; /* NULL: no thread runs, operations happen at once */
static void *explorer;
static const struct explore_scenario *scene;

struct choice {
    unsigned taken, of;
    unsigned thread;
    bool flush;
    enum kind kind;
};

static struct choice path[DEPTH];
static unsigned known, depth; /* choices given, made */

static struct {
    const void *at;
    size_t size;
} words[WORDS]; /* that are written */
static unsigned word_count;
static bool word_new; /* there is one that was not known when the search began */

/* ---- memory -----------------------------------------------------------------------------------
 */

static uint64_t peek(const void *at, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, at, size);
    return value;
}

static uint64_t seen_by(const struct thread *thread, const void *at, size_t size)
{
    for (unsigned i = thread->writes; i-- > 0;)
        if (thread->buffer[i].at == at)
            return thread->buffer[i].value;
    return peek(at, size);
}

static void flush(struct thread *thread)
{
    memcpy(thread->buffer[0].at, &thread->buffer[0].value, thread->buffer[0].size);
    memmove(thread->buffer, thread->buffer + 1, --thread->writes * sizeof(struct write));
}

static void perform(struct thread *thread, struct operation *o)
{
    uint64_t old = o->kind == FENCE || o->kind == START ? 0 : seen_by(thread, o->at, o->size);
    uint64_t new = o->kind == AND ? old & o->value : o->kind == WAIT ? 0 : o->value;
    o->result = old;
    if (o->kind == STORE && !o->drains) {
        if (thread->writes == BUFFER)
            abort();
        thread->buffer[thread->writes++] = (struct write){o->at, o->size, o->value};
        o->result = 0;
    } else if (o->kind == STORE || o->kind == SWAP || o->kind == AND || o->kind == WAIT ||
               (o->kind == CAS && old == o->expected)) {
        memcpy(o->at, &new, o->size);
    }
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

/* ---- threads ----------------------------------------------------------------------------------
 */

/* Whether somebody may write the word; notes that this operation does. */
static bool changes(const struct operation *o)
{
    for (unsigned i = 0; i < word_count; i++)
        if (words[i].at == o->at)
            return true;
    if (o->kind == LOAD || o->kind == FENCE)
        return false;
    if (word_count == WORDS)
        abort();
    words[word_count].at = o->at;
    words[word_count++].size = o->size;
    return word_new = true;
}

static uint64_t operate(struct operation o)
{
    static struct thread nobody;
    if (self == NULL) {
        perform(&nobody, &o);
        while (nobody.writes != 0)
            flush(&nobody);
        return o.result;
    }
    if (!changes(&o) && o.kind == LOAD)
        return peek(o.at, o.size);
    struct thread *thread = self;
    thread->next = o;
    kit_switch(&thread->context, explorer);
    return thread->next.result;
}

uint64_t explore_load(const void *at, size_t size)
{
    return operate((struct operation){.kind = LOAD, .at = (void *)(uintptr_t)at, .size = size});
}

static uint64_t narrow(uint64_t value, size_t size)
{
    return size == 8 ? value : value & ((UINT64_C(1) << size * 8) - 1);
}

void explore_store(void *at, size_t size, uint64_t value, int order)
{
    operate((struct operation){.kind = STORE,
                               .at = at,
                               .size = size,
                               .value = narrow(value, size),
                               .drains = order == EXPLORE_SEQ_CST});
}

uint64_t explore_swap(void *at, size_t size, uint64_t value)
{
    return operate((struct operation){
        .kind = SWAP, .at = at, .size = size, .value = narrow(value, size), .drains = true});
}

uint64_t explore_and(void *at, size_t size, uint64_t value)
{
    return operate((struct operation){
        .kind = AND, .at = at, .size = size, .value = narrow(value, size), .drains = true});
}

bool explore_cas(void *at, size_t size, void *expected, uint64_t value)
{
    uint64_t wanted = peek(expected, size);
    uint64_t old = operate((struct operation){.kind = CAS,
                                              .at = at,
                                              .size = size,
                                              .value = narrow(value, size),
                                              .expected = wanted,
                                              .drains = true});
    memcpy(expected, &old, size);
    return old == wanted;
}

void explore_fence(void)
{
    operate((struct operation){.kind = FENCE, .drains = true});
}

void explore_wait(uint32_t *word)
{
    operate((struct operation){.kind = WAIT, .at = word, .size = sizeof(*word), .drains = true});
}

bool explore_ended(unsigned thread)
{
    return threads[thread].ended;
}

static void thread_main(void *argument)
{
    struct thread *thread = argument;
    thread->run();
    thread->ended = true;
    kit_switch(&thread->context, explorer);
    abort();
}

/* Runs a thread up to its next operation. */
static void advance(struct thread *thread)
{
    self = thread;
    kit_switch(&explorer, thread->context);
    self = NULL;
}

static void start_all(void)
{
    scene->reset();
    count = 0;
    while (count < EXPLORE_THREADS && scene->thread[count] != NULL) {
        struct thread *thread = &threads[count];
        thread->run = scene->thread[count++];
        thread->ended = false;
        thread->writes = 0;
        memset(thread->stack, 0, STACK); /* what no call has written is always the same */
        thread->next = (struct operation){.kind = START};
        thread->context = kit_switch_prepare(thread->stack + STACK, thread_main, thread);
    }
    for (unsigned i = 0; i < count; i++)
        advance(&threads[i]);
}

/* ---- choices ----------------------------------------------------------------------------------
 */

static bool enabled(const struct thread *thread)
{
    if (thread->ended || (thread->next.drains && thread->writes != 0))
        return false;
    return thread->next.kind != WAIT || peek(thread->next.at, thread->next.size) != 0;
}

/* What can happen next; at most two things per thread. */
static unsigned options(struct choice *out)
{
    unsigned found = 0;
    for (unsigned i = 0; i < count; i++) {
        if (enabled(&threads[i]))
            out[found++] = (struct choice){.thread = i, .kind = threads[i].next.kind};
        if (threads[i].writes != 0)
            out[found++] = (struct choice){.thread = i, .flush = true};
    }
    return found;
}

static void take(const struct choice *choice)
{
    struct thread *thread = &threads[choice->thread];
    if (choice->flush) {
        flush(thread);
        return;
    }
    perform(thread, &thread->next);
    advance(thread);
    thread->next.result = 0;
}

static uint64_t mix_all(uint64_t hash, const void *from, const void *to)
{
    for (const char *at = from; at + 8 <= (const char *)to; at += 8)
        hash = mix(hash, peek(at, 8));
    return hash;
}

static uint64_t state(void)
{
    uint64_t hash = mix_all(1, scene->memory, (char *)scene->memory + scene->size);
    for (unsigned i = 0; i < count; i++) {
        const struct thread *thread = &threads[i];
        hash = mix(mix(hash, thread->ended), thread->writes);
        hash = mix(mix(hash, thread->next.kind), (uintptr_t)thread->next.at);
        hash = mix(mix(hash, thread->next.value), thread->next.expected);
        hash = mix_all(hash, thread->context, thread->stack + STACK);
        for (unsigned j = 0; j < thread->writes; j++)
            hash = mix(mix(hash, (uintptr_t)thread->buffer[j].at), thread->buffer[j].value);
    }
    return hash | 1;
}

/* ---- states seen ------------------------------------------------------------------------------
 */

static uint64_t *table;
static size_t table_size, table_used;

static bool table_add(uint64_t hash)
{
    size_t at = (size_t)(hash >> 1) & (table_size - 1);
    while (table[at] != 0 && table[at] != hash)
        at = (at + 1) & (table_size - 1);
    if (table[at] == hash)
        return false;
    table[at] = hash;
    table_used++;
    return true;
}

/* Whether the state is new. */
static bool remember(uint64_t hash)
{
    if (table_used * 2 >= table_size) {
        uint64_t *old = table;
        size_t size = table_size;
        table_size = size != 0 ? 2 * size : 1 << 16;
        table = calloc(table_size, sizeof(*table));
        table_used = 0;
        for (size_t i = 0; i < size; i++)
            if (old[i] != 0)
                table_add(old[i]);
        free(old);
    }
    return table_add(hash);
}

/* ---- the search -------------------------------------------------------------------------------
 */

void explore_check(bool good, const char *what)
{
    static const char *const names[] = {"load", "store", "swap", "and",
                                        "cas",  "fence", "wait", "start"};
    if (good)
        return;
    printf("%s: %s, after", scene->name, what);
    for (unsigned i = 0; i < depth; i++)
        printf(" %u:%s", path[i].thread, path[i].flush ? "flush" : names[path[i].kind]);
    printf("\n");
    exit(1);
}

/* One way, as far as it leads to new states. */
static void walk(void)
{
    struct choice possible[2 * EXPLORE_THREADS];
    start_all();
    for (depth = 0;; depth++) {
        if (depth >= known && !remember(state()))
            return;
        unsigned found = options(possible);
        if (found == 0) {
            scene->finish();
            return;
        }
        if (depth == DEPTH) {
            explore_check(false, "it never ends");
        }
        unsigned taken = depth < known ? path[depth].taken : 0;
        path[depth] = possible[taken];
        path[depth].taken = taken;
        path[depth].of = found;
        take(&path[depth]);
    }
}

static void search(void)
{
    free(table);
    table = NULL;
    table_size = table_used = 0;
    known = 0;
    word_new = false;
    do {
        walk();
        while (depth > 0 && path[depth - 1].taken + 1 == path[depth - 1].of)
            depth--;
        if (depth == 0)
            return;
        path[depth - 1].taken++;
        known = depth;
    } while (!word_new);
}

uint64_t explore_run(const struct explore_scenario *scenario)
{
    scene = scenario;
    word_count = 0;
    do
        search();
    while (word_new);
    return table_used;
}
