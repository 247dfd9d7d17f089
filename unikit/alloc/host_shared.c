/* SPDX-License-Identifier: MIT */
/* Heaps in shared memory; see host_shared.h. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <unikit/alloc/host_shared.h>
#include <unikit/ffi/hooks/guard.h>
#include <unikit/rt/bits.h>

enum { FRESH, OPENING, READY };
enum { OPTIONS_MAX = 32, PATIENCE_MS = 5000 };
#define MAGIC UINT64_C(0x31706165682d6b75) /* «uk-heap1» */

struct header {
    uint64_t magic;
    _Atomic uint32_t state;
    _Atomic int32_t maker;
    uint64_t address, size;
    struct kit_alloc *inner;
    uintptr_t code; /* where the maker has the component */
    char id[64];
    uint64_t options[OPTIONS_MAX];
    pthread_mutex_t mutex;
    int32_t owner; /* of the lock, to be named when it dies */
    int32_t broken_by;
    uint32_t recoveries;
    uint64_t root[3];
};

struct kit_shared {
    struct header *header;
    const struct kit_alloc_ops *ops; /* of the component in this process */
};

/* ---- the lock ------------------------------------------------------------------------------- */

static _Noreturn void shared_refuse(struct header *header)
{
    char message[160];
    snprintf(message, sizeof message,
             "the shared heap is broken: process %d died or panicked inside an operation and left "
             "it unsound; make a new one",
             header->broken_by);
    kit_panic(message);
}

/* Whether the heap is sound; a check that panics says no. */
static bool shared_sound(const struct header *header)
{
    int rc;
    if (*kit_host_guards()) {
        KIT_GUARDED(rc = kit_alloc_check(header->inner), return false);
    } else {
        rc = kit_alloc_check(header->inner);
    }
    return rc == 0;
}

void kit_shared_enter(struct kit_shared *shared)
{
    struct header *header = shared->header;
    int rc = pthread_mutex_lock(&header->mutex);
    if (rc == EOWNERDEAD) {
        int32_t dead = header->owner;
        pthread_mutex_consistent(&header->mutex);
        header->inner->ops = shared->ops;
        if (!header->broken_by && shared_sound(header))
            header->recoveries++;
        else if (!header->broken_by)
            header->broken_by = dead;
    }
    if (header->broken_by) {
        pthread_mutex_unlock(&header->mutex);
        shared_refuse(header);
    }
    header->owner = (int32_t)getpid();
    header->inner->ops = shared->ops; /* the last one here may have had its code elsewhere */
}

void kit_shared_leave(struct kit_shared *shared)
{
    pthread_mutex_unlock(&shared->header->mutex);
}

void kit_shared_abandon(struct kit_shared *shared)
{
    struct header *header = shared->header;
    header->broken_by = header->owner;
    kit_shared_leave(shared);
}

/* ---- opening -------------------------------------------------------------------------------- */

static int shared_init_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    if (pthread_mutexattr_init(&attributes) != 0)
        return KIT_ENOMEM;
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    int rc = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return rc == 0 ? 0 : KIT_ENOTSUP;
}

static int shared_make(struct header *header, const struct kit_alloc_component *component,
                       const uint64_t *options, size_t count, size_t size)
{
    size_t offset = kit_align_up(sizeof *header, 4096);
    int rc = shared_init_mutex(&header->mutex);
    if (rc == 0)
        rc = component->open(options, (char *)header + offset, size - offset, &header->inner);
    if (rc != 0)
        return rc;
    header->magic = MAGIC;
    header->address = (uintptr_t)header;
    header->size = size;
    header->code = (uintptr_t)component;
    memcpy(header->options, options, count * sizeof *options);
    memcpy(header->id, component->id, strlen(component->id));
    return 0;
}

/* Whether what is open there is what this process wants. */
static int shared_compare(const struct header *header, const char *id, const uint64_t *options,
                          size_t count, size_t size)
{
    if (header->magic != MAGIC || header->size > size)
        return KIT_EMALFORMED;
    if (header->address != (uintptr_t)header)
        return KIT_EEXIST;
    if (strncmp(header->id, id, sizeof header->id) != 0 ||
        memcmp(header->options, options, count * sizeof *options) != 0)
        return KIT_EINVAL;
    return 0;
}

/* Waits while another process opens it; takes over what one left undone that died. */
static int shared_wait(struct header *header)
{
    for (int waited = 0; waited < PATIENCE_MS; waited++) {
        uint32_t state = atomic_load(&header->state);
        if (state != OPENING)
            return 0;
        int32_t maker = atomic_load(&header->maker);
        if (maker && kill(maker, 0) != 0 && errno == ESRCH) {
            atomic_store(&header->maker, 0);
            atomic_compare_exchange_strong(&header->state, &state, FRESH);
            return 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return KIT_ETIMEDOUT;
}

int kit_shared_open(const struct kit_alloc_component *component, const uint64_t *options,
                    size_t options_count, bool relocatable, void *memory, size_t size,
                    struct kit_shared **shared, struct kit_alloc **inner)
{
    struct header *header = memory;
    if (options_count > OPTIONS_MAX || strlen(component->id) >= sizeof header->id)
        return KIT_EINVAL;
    if (size < 2 * 4096)
        return KIT_ENOMEM;
    struct kit_shared *side = malloc(sizeof *side);
    if (!side)
        return KIT_ENOMEM;
    int rc = 0;
    while (rc == 0 && atomic_load(&header->state) != READY) {
        uint32_t state = FRESH;
        if (atomic_load(&header->state) > READY) {
            rc = KIT_EMALFORMED;
        } else if (atomic_compare_exchange_strong(&header->state, &state, OPENING)) {
            atomic_store(&header->maker, (int32_t)getpid());
            rc = shared_make(header, component, options, options_count, size);
            atomic_store(&header->state, rc == 0 ? READY : FRESH);
        } else {
            rc = shared_wait(header);
        }
    }
    if (rc == 0)
        rc = shared_compare(header, component->id, options, options_count, size);
    if (rc == 0 && !relocatable && header->code != (uintptr_t)component)
        rc = KIT_ENOTSUP;
    if (rc != 0) {
        free(side);
        return rc;
    }
    *side = (struct kit_shared){header, component->ops};
    *shared = side;
    *inner = header->inner;
    return 0;
}

void kit_shared_close(struct kit_shared *shared)
{
    free(shared);
}

void kit_shared_read(struct kit_shared *shared, struct kit_shared_facts *out)
{
    const struct header *header = shared->header;
    memcpy(out->root, header->root, sizeof out->root);
    out->recoveries = header->recoveries;
    out->broken_by = header->broken_by;
    out->maker = header->maker;
}

void kit_shared_set_root(struct kit_shared *shared, const uint64_t root[3])
{
    kit_shared_enter(shared);
    memcpy(shared->header->root, root, sizeof shared->header->root);
    kit_shared_leave(shared);
}
