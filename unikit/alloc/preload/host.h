/* SPDX-License-Identifier: MIT */
/* What the files of the preload library share: how one component, or layers over one, serves the
 * whole malloc family of a Linux program.
 *
 * The library is composed anew for each choice of components. Its one hot file, composition.c, is
 * written by unikit/image/preload.py: it includes the component's own source, says what it can do
 * by the macros below, and includes host_malloc.c and host_new.c, so that the compiler sees malloc
 * and the component as one. That file is freestanding, as components are; the others use libc.
 *
 * Threads. A component with KIT_ALLOC_THREADS gives every thread a face of its own, which is used
 * without any lock; one more face, `kit_preload_heap`, is shared under a lock by whoever has none:
 * threads that are about to end, and one that is between two halves of fork(). Any other component
 * has this one face alone, and a program of a single thread does not lock. */
#ifndef KIT_ALLOC_PRELOAD_HOST_H
#define KIT_ALLOC_PRELOAD_HOST_H

#include <unikit/alloc/alloc.h>

/* What all the components of the library can do (KIT_ALLOC_...). */
#ifndef KIT_PRELOAD_UNSIZED
#define KIT_PRELOAD_UNSIZED 0
#endif
#ifndef KIT_PRELOAD_THREADS
#define KIT_PRELOAD_THREADS 0
#endif
#ifndef KIT_PRELOAD_PAGES
#define KIT_PRELOAD_PAGES 0
#endif
#ifndef KIT_PRELOAD_ZEROED
#define KIT_PRELOAD_ZEROED 0
#endif
#ifndef KIT_PRELOAD_ADD_REGION
#define KIT_PRELOAD_ADD_REGION 0
#endif
#ifndef KIT_PRELOAD_SITES
#define KIT_PRELOAD_SITES 0
#endif
#ifndef KIT_PRELOAD_LEAKS
#define KIT_PRELOAD_LEAKS 0
#endif
/* Whether each call notes its block and its caller for the message of a panic. */
#ifndef KIT_PRELOAD_NOTES
#define KIT_PRELOAD_NOTES 0
#endif

#pragma GCC visibility push(hidden)

/* composition.c: layers from the outside in, then the component that holds the memory. */
extern const struct kit_alloc_choice kit_preload_choices[];
extern const size_t kit_preload_choice_count;
extern const char kit_preload_name[]; /* «guard,tlsf» */

enum kit_preload_state {
    KIT_PRELOAD_NEW,      /* the thread has not allocated yet */
    KIT_PRELOAD_ATTACHED, /* it has a face, or there was no memory for one */
    KIT_PRELOAD_GONE,     /* it gave its face back: it is about to end */
};

struct kit_preload_thread {
    struct kit_alloc *face; /* NULL: none, use the shared one */
    int32_t budget;         /* calls until the slow way is taken: for a tick, or always */
    uint8_t state;
    uint8_t rounds;    /* of destructors of thread-specific data, at the end of the thread */
    bool forking;      /* between the handlers around fork(): holds the locks */
    const void *block; /* what the last call was about, and who called, where that is noted */
    const void *site;
};

extern _Thread_local struct kit_preload_thread kit_preload_thread
    __attribute__((tls_model("initial-exec")));
extern struct kit_alloc *kit_preload_heap; /* the shared face; NULL until the first call */
extern int32_t kit_preload_budget;         /* as in a thread, where there is one face only */

/* host_heap.c */

/* Opens the heap if nobody did; does not return without one. */
void kit_preload_open(void);
/* More memory for a request that was refused; `locked` as kit_preload_enter() said. */
bool kit_preload_grow(size_t size, size_t align, bool locked);
/* Makes `size` bytes zero, large amounts by new pages. */
void kit_preload_clear(void *block, size_t size);
/* The value of an environment variable, even before libc knows the environment. */
const char *kit_preload_option(const char *name);

/* host_thread.c */

/* The slow way into the heap: a face that this thread may use until kit_preload_leave(). */
struct kit_alloc *kit_preload_enter(bool *locked);
void kit_preload_leave(bool locked);
void kit_preload_lock(void);
void kit_preload_unlock(void);
/* To be called once, when the heap is open: handlers for fork and the end of threads. */
void kit_preload_watch(void);

/* host_report.c */

/* Writes parts up to NULL to standard error, as one line, and aborts. */
_Noreturn void kit_preload_die(const char *const *parts);
void kit_preload_set_errno(int error);
/* Writes «0x7f.. (name+0x12 in program)» for a code address. */
void kit_preload_describe(const void *place, char *text, size_t size);

/* host_leaks.c */

/* Lists what was never freed, if UNIKIT_ALLOC_LEAKS says so; once, at exit. */
void kit_preload_leaks(void);

/* host_raise.c */

/* What operator new does when there is no memory: calls the handler that the program installed
 * and returns, or throws std::bad_alloc. */
void kit_preload_no_memory(void);
/* The forms that do not throw end here when there is no memory: a block after all, or NULL. */
void *kit_preload_new_quiet(size_t size, size_t align, const void *nothrow);

#pragma GCC visibility pop

#endif
