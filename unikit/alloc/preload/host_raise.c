/* SPDX-License-Identifier: MIT */
/* What C++ wants done when memory runs out, in a library that is not C++ itself.
 *
 * The functions of the C++ runtime are looked up at that moment, for a program may get its runtime
 * late, by dlopen, and then not even in the global scope. std::get_new_handler and the function
 * that throws std::bad_alloc have the same names in libstdc++ and libc++. */
#include <dlfcn.h>

#include <unikit/alloc/preload/host.h>

typedef void (*handler)(void); /* std::new_handler */

/* A function of the C++ runtime's own, whatever else of that name is in the process. */
static void *find_in_runtime(const char *symbol)
{
    static const char *const runtimes[] = {"libstdc++.so.6", "libc++.so.1"};
    void *found = NULL;
    for (size_t index = 0; !found && index < KIT_ARRAY_SIZE(runtimes); index++) {
        void *runtime = dlopen(runtimes[index], RTLD_LAZY | RTLD_NOLOAD);
        if (runtime) {
            found = dlsym(runtime, symbol);
            dlclose(runtime); /* it is in the process and stays: only our count goes */
        }
    }
    return found;
}

static void *find(const char *symbol)
{
    void *found = dlsym(RTLD_DEFAULT, symbol);
    return found ? found : find_in_runtime(symbol);
}

static handler installed(void)
{
    handler (*get)(void) = (handler(*)(void))find("_ZSt15get_new_handlerv");
    return get ? get() : NULL;
}

void kit_preload_no_memory(void)
{
    handler act = installed();
    if (!act)
        act = (handler)find("_ZSt17__throw_bad_allocv");
    if (!act)
        kit_preload_die((const char *[]){"no memory for operator new, and no C++ runtime to throw "
                                         "std::bad_alloc",
                                         NULL});
    act();
}

/* A handler may throw, and only C++ can catch that: the runtime's own nothrow operator calls our
 * throwing one and catches. */
void *kit_preload_new_quiet(size_t size, size_t align, const void *nothrow)
{
    if (!installed())
        return NULL;
    if (align == KIT_ALLOC_ALIGN_MIN) {
        void *(*new)(size_t, const void *) =
            (void *(*)(size_t, const void *))find_in_runtime("_ZnwmRKSt9nothrow_t");
        return new ? new (size, nothrow) : NULL;
    }
    void *(*new)(size_t, size_t, const void *) =
        (void *(*)(size_t, size_t, const void *))find_in_runtime(
            "_ZnwmSt11align_val_tRKSt9nothrow_t");
    return new ? new (size, align, nothrow) : NULL;
}
