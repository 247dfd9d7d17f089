/* SPDX-License-Identifier: MIT */
/* The runtime environment of a process, over libc: clocks, entropy, sleeping on descriptors, pages.
 * The console is a pair of rings that other threads may use, or descriptors. A panic or exit of a
 * component unwinds to the guarded call from Python (kit_panic of rt/host.c). */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <unikit/platform/host/env.h>
#include <unikit/rt/bits.h>
#include <unikit/rt/x86_64/cpu.h>

enum { PAGE = 4096 };

struct ring {
    size_t start;
    size_t length;
    char data[KIT_HOST_CONSOLE];
};

struct host_cpu {
    struct kit_cpu cpu;
    struct kit_host_environment *host;
    pthread_t thread;
    bool started;
    bool kicked;  /* KIT_WAKE_CPU; under the lock, as ... */
    bool closing; /* ... that its thread is to end */
    pthread_mutex_t lock;
    pthread_cond_t condition;
    void (*entry)(void *argument);
    void *argument;
};

struct kit_host_environment {
    runtime_environment_t env;
    struct host_cpu *cpus;
    console_interface_t console;
    int wake_fd;
    int output_fd;
    int input_fd; /* -1: the ring */
    bool input_ended;
    unsigned file_count;
    int files[KIT_HOST_FILES_MAX];
    unsigned region_count;
    memory_region_t regions[KIT_HOST_REGIONS_MAX];
    char *options;
    size_t options_bytes;
    int fate;
    int32_t code;
    pthread_mutex_t lock; /* of the rings */
    struct ring output;
    struct ring input;
};

/* The processor that this thread is; NULL: processor 0 of whatever environment. */
static _Thread_local struct host_cpu *here;

static size_t ring_put(struct ring *ring, const char *data, size_t length)
{
    size_t room = sizeof ring->data - ring->length;
    length = length < room ? length : room;
    for (size_t done = 0; done < length;) {
        size_t at = (ring->start + ring->length) % sizeof ring->data;
        size_t part = sizeof ring->data - at;
        part = part < length - done ? part : length - done;
        memcpy(ring->data + at, data + done, part);
        ring->length += part;
        done += part;
    }
    return length;
}

static size_t ring_take(struct ring *ring, char *buffer, size_t length)
{
    length = length < ring->length ? length : ring->length;
    for (size_t done = 0; done < length;) {
        size_t part = sizeof ring->data - ring->start;
        part = part < length - done ? part : length - done;
        memcpy(buffer + done, ring->data + ring->start, part);
        ring->start = (ring->start + part) % sizeof ring->data;
        ring->length -= part;
        done += part;
    }
    return length;
}

static struct kit_host_environment *host_of(runtime_environment_t *env)
{
    return KIT_CONTAINER_OF(env, struct kit_host_environment, env);
}

static bool ready(int fd, short events)
{
    struct pollfd file = {fd, events, 0};
    return poll(&file, 1, 0) > 0;
}

static size_t console_write(console_interface_t *console, const char *data, size_t length)
{
    struct kit_host_environment *host =
        KIT_CONTAINER_OF(console, struct kit_host_environment, console);
    if (host->output_fd < 0) {
        pthread_mutex_lock(&host->lock);
        length = ring_put(&host->output, data, length);
        pthread_mutex_unlock(&host->lock);
        return length;
    }
    size_t done = 0;
    while (done < length && ready(host->output_fd, POLLOUT)) {
        size_t part = length - done < PAGE ? length - done : PAGE; /* what cannot block a pipe */
        ssize_t count = write(host->output_fd, data + done, part);
        if (count <= 0)
            break;
        done += (size_t)count;
    }
    return done;
}

static size_t console_read(console_interface_t *console, char *buffer, size_t max_length)
{
    struct kit_host_environment *host =
        KIT_CONTAINER_OF(console, struct kit_host_environment, console);
    if (host->input_fd < 0) {
        pthread_mutex_lock(&host->lock);
        size_t length = ring_take(&host->input, buffer, max_length);
        pthread_mutex_unlock(&host->lock);
        return length;
    }
    if (host->input_ended || max_length == 0 || !ready(host->input_fd, POLLIN))
        return 0;
    ssize_t count = read(host->input_fd, buffer, max_length);
    host->input_ended = count == 0;
    return count > 0 ? (size_t)count : 0;
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * KIT_NS_PER_S + (uint64_t)time.tv_nsec;
}

static uint64_t now_ns(runtime_environment_t *env)
{
    (void)env;
    return read_clock(CLOCK_MONOTONIC);
}

static uint64_t wall_ns(runtime_environment_t *env)
{
    (void)env;
    return read_clock(CLOCK_REALTIME);
}

static int entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    (void)env;
    for (size_t done = 0; done < size;) {
        ssize_t count = getrandom((char *)buffer + done, size - done, GRND_NONBLOCK);
        if (count < 0 && errno != EINTR)
            return KIT_EIO;
        done += count > 0 ? (size_t)count : 0;
    }
    return KIT_OK;
}

static bool input_waits(struct kit_host_environment *host)
{
    pthread_mutex_lock(&host->lock);
    bool some = host->input.length != 0;
    pthread_mutex_unlock(&host->lock);
    return some;
}

static bool take_wake(struct kit_host_environment *host)
{
    uint64_t count;
    return read(host->wake_fd, &count, sizeof count) == sizeof count;
}

static struct timespec time_left(uint64_t deadline_ns)
{
    uint64_t now = read_clock(CLOCK_MONOTONIC);
    uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
    return (struct timespec){(time_t)(left / KIT_NS_PER_S), (long)(left % KIT_NS_PER_S)};
}

uint32_t kit_host_environment_wait(struct kit_host_environment *host, uint64_t deadline_ns,
                                   uint32_t wake)
{
    struct pollfd files[KIT_HOST_FILES_MAX + 2] = {{host->wake_fd, POLLIN, 0}};
    nfds_t count = 1;
    unsigned watched = (wake & KIT_WAKE_NETWORK) != 0 ? host->file_count : 0;
    for (unsigned i = 0; i < watched; i++)
        files[count++] = (struct pollfd){host->files[i], POLLIN, 0};
    bool console = (wake & KIT_WAKE_CONSOLE) != 0;
    if (console && host->input_fd >= 0 && !host->input_ended)
        files[count++] = (struct pollfd){host->input_fd, POLLIN, 0};
    if (console && host->input_fd < 0 && input_waits(host))
        deadline_ns = 0;
    struct timespec left = time_left(deadline_ns);
    int ready_files = ppoll(files, count, deadline_ns == KIT_NEVER ? NULL : &left, NULL);
    uint32_t woken = 0;
    if (ready_files > 0) {
        if (files[0].revents != 0 && take_wake(host))
            woken |= KIT_WAKE_CPU;
        for (nfds_t i = 1; i < count; i++)
            if (files[i].revents != 0)
                woken |= i <= watched ? KIT_WAKE_NETWORK : KIT_WAKE_CONSOLE;
    }
    if (console && host->input_fd < 0 && input_waits(host))
        woken |= KIT_WAKE_CONSOLE;
    return woken & wake;
}

/* A further processor: it has no devices, and ends here when the environment is closed. */
static uint32_t cpu_wait(struct host_cpu *cpu, uint64_t deadline_ns, uint32_t wake)
{
    const struct timespec until = {(time_t)(deadline_ns / KIT_NS_PER_S),
                                   (long)(deadline_ns % KIT_NS_PER_S)};
    pthread_mutex_lock(&cpu->lock);
    int rc = 0;
    while (!(cpu->kicked && (wake & KIT_WAKE_CPU)) && rc == 0 && !cpu->closing)
        rc = deadline_ns == KIT_NEVER ? pthread_cond_wait(&cpu->condition, &cpu->lock)
                                      : pthread_cond_timedwait(&cpu->condition, &cpu->lock, &until);
    uint32_t woken = cpu->kicked && (wake & KIT_WAKE_CPU) ? KIT_WAKE_CPU : 0;
    if (woken != 0)
        cpu->kicked = false;
    const bool closing = cpu->closing;
    pthread_mutex_unlock(&cpu->lock);
    if (closing)
        pthread_exit(NULL);
    return woken;
}

static uint32_t env_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    if (here != NULL && here->host == host_of(env))
        return cpu_wait(here, deadline_ns, wake);
    return kit_host_environment_wait(host_of(env), deadline_ns, wake);
}

void kit_host_environment_wake(struct kit_host_environment *host)
{
    uint64_t one = 1;
    ssize_t count = write(host->wake_fd, &one, sizeof one);
    (void)count; /* fails only when full, which wakes as well */
}

static bool lies_in(const memory_region_t *region, uintptr_t base, size_t size)
{
    uintptr_t offset = base - (uintptr_t)region->base_address;
    return offset <= region->size && size <= region->size - offset;
}

static bool may_change(const struct kit_host_environment *host, const void *base, size_t size)
{
    uintptr_t start = (uintptr_t)base;
    if (((start | size) & (PAGE - 1)) != 0)
        return false;
    bool found = lies_in(&host->env.memory, start, size);
    for (unsigned i = 0; i < host->region_count && !found; i++)
        found = lies_in(&host->regions[i], start, size);
    return found;
}

static int page_release(runtime_environment_t *env, void *base, size_t size)
{
    if (!may_change(host_of(env), base, size))
        return KIT_EINVAL;
    return madvise(base, size, MADV_DONTNEED) == 0 ? KIT_OK : KIT_ENOTSUP;
}

static int page_protect(runtime_environment_t *env, void *base, size_t size, uint32_t access)
{
    if (!may_change(host_of(env), base, size) || access > (KIT_PAGE_READ | KIT_PAGE_WRITE))
        return KIT_EINVAL;
    int protection = (access & KIT_PAGE_READ ? PROT_READ : 0) |
                     (access & KIT_PAGE_WRITE ? PROT_READ | PROT_WRITE : 0);
    return mprotect(base, size, protection) == 0 ? KIT_OK : KIT_ENOTSUP;
}

static void *run_cpu(void *argument)
{
    here = argument;
    here->entry(here->argument);
    return NULL;
}

static int cpu_start(runtime_environment_t *env, uint32_t cpu, void (*entry)(void *argument),
                     void *argument, void *stack_top)
{
    struct kit_host_environment *host = host_of(env);
    (void)stack_top; /* threads of a process bring their own */
    if (cpu == 0 || cpu >= env->cpus || host->cpus[cpu].started)
        return KIT_EINVAL;
    host->cpus[cpu].entry = entry;
    host->cpus[cpu].argument = argument;
    host->cpus[cpu].started =
        pthread_create(&host->cpus[cpu].thread, NULL, run_cpu, &host->cpus[cpu]) == 0;
    return host->cpus[cpu].started ? KIT_OK : KIT_ENOMEM;
}

static void wake_further(struct host_cpu *cpu, bool closing)
{
    pthread_mutex_lock(&cpu->lock);
    cpu->kicked = true;
    cpu->closing |= closing;
    pthread_cond_signal(&cpu->condition);
    pthread_mutex_unlock(&cpu->lock);
}

static void cpu_wake(runtime_environment_t *env, uint32_t cpu)
{
    if (cpu == 0)
        kit_host_environment_wake(host_of(env));
    else if (cpu < env->cpus)
        wake_further(&host_of(env)->cpus[cpu], false);
}

static struct kit_cpu *cpu_self(runtime_environment_t *env)
{
    struct kit_host_environment *host = host_of(env);
    return here != NULL && here->host == host ? &here->cpu : &host->cpus[0].cpu;
}

static int cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    (void)env, (void)stop_ns;
    return KIT_ENOTSUP;
}

static const char *boot_option(runtime_environment_t *env, const char *name)
{
    const struct kit_host_environment *host = host_of(env);
    const char *at = host->options, *end = at + host->options_bytes;
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

static void panic_handler(runtime_environment_t *env, const char *message)
{
    host_of(env)->fate = KIT_HOST_PANICKED;
    kit_panic(message);
}

static void leave(runtime_environment_t *env, int32_t code)
{
    host_of(env)->fate = KIT_HOST_EXITED;
    host_of(env)->code = code;
    kit_panic("the application ended");
}

int kit_host_environment_watch(struct kit_host_environment *host, int fd)
{
    for (unsigned i = 0; i < host->file_count; i++)
        if (host->files[i] == fd)
            return KIT_EEXIST;
    if (host->file_count == KIT_HOST_FILES_MAX)
        return KIT_ENOMEM;
    host->files[host->file_count++] = fd;
    return KIT_OK;
}

int kit_host_environment_unwatch(struct kit_host_environment *host, int fd)
{
    for (unsigned i = 0; i < host->file_count; i++)
        if (host->files[i] == fd) {
            host->files[i] = host->files[--host->file_count];
            return KIT_OK;
        }
    return KIT_ENOENT;
}

int kit_host_environment_add_region(struct kit_host_environment *host, void *base, uint64_t size)
{
    if ((((uintptr_t)base | size) & (PAGE - 1)) != 0 || base == NULL)
        return KIT_EINVAL;
    if (host->region_count == KIT_HOST_REGIONS_MAX)
        return KIT_ENOMEM;
    host->regions[host->region_count++] = (memory_region_t){base, size};
    return KIT_OK;
}

int kit_host_environment_remove_region(struct kit_host_environment *host, void *base)
{
    for (unsigned i = 0; i < host->region_count; i++)
        if (host->regions[i].base_address == base) {
            host->regions[i] = host->regions[--host->region_count];
            return KIT_OK;
        }
    return KIT_ENOENT;
}

size_t kit_host_environment_output(struct kit_host_environment *host, char *buffer, size_t size)
{
    pthread_mutex_lock(&host->lock);
    size_t length = ring_take(&host->output, buffer, size);
    pthread_mutex_unlock(&host->lock);
    return length;
}

size_t kit_host_environment_input(struct kit_host_environment *host, const char *data, size_t size)
{
    pthread_mutex_lock(&host->lock);
    size_t length = ring_put(&host->input, data, size);
    pthread_mutex_unlock(&host->lock);
    kit_host_environment_wake(host);
    return length;
}

int kit_host_environment_fate(const struct kit_host_environment *host, int32_t *code)
{
    *code = host->code;
    return host->fate;
}

runtime_environment_t *kit_host_environment_env(struct kit_host_environment *host)
{
    return &host->env;
}

/* Names and values in pairs, each ended. */
static bool are_pairs(const char *options, size_t bytes)
{
    size_t ends = 0;
    for (size_t i = 0; i < bytes; i++)
        ends += options[i] == 0;
    return ends % 2 == 0 && (bytes == 0 || options[bytes - 1] == 0);
}

static int open_memory(struct kit_host_environment *host, uint64_t size)
{
    if (size == 0)
        return KIT_OK;
    if (size > SIZE_MAX - PAGE)
        return KIT_ENOMEM;
    size = kit_align_up(size, PAGE);
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return KIT_ENOMEM;
    host->env.memory = (memory_region_t){base, size};
    return KIT_OK;
}

static int open_cpus(struct kit_host_environment *host)
{
    pthread_condattr_t clock;
    host->cpus = calloc(host->env.cpus, sizeof *host->cpus);
    if (host->cpus == NULL)
        return KIT_ENOMEM;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < host->env.cpus; i++) {
        struct host_cpu *cpu = &host->cpus[i];
        cpu->host = host;
        cpu->cpu.number = i;
        cpu->cpu.self = &cpu->cpu;
        pthread_mutex_init(&cpu->lock, NULL);
        pthread_cond_init(&cpu->condition, &clock);
    }
    pthread_condattr_destroy(&clock);
    return KIT_OK;
}

static void close_cpus(struct kit_host_environment *host)
{
    for (uint32_t i = 0; host->cpus != NULL && i < host->env.cpus; i++)
        wake_further(&host->cpus[i], true);
    for (uint32_t i = 0; host->cpus != NULL && i < host->env.cpus; i++) {
        if (host->cpus[i].started)
            pthread_join(host->cpus[i].thread, NULL);
        pthread_mutex_destroy(&host->cpus[i].lock);
        pthread_cond_destroy(&host->cpus[i].condition);
    }
    free(host->cpus);
}

int kit_host_environment_open(const struct kit_host_settings *settings,
                              struct kit_host_environment **out)
{
    if (!are_pairs(settings->options, settings->options_bytes) || settings->cpus > KIT_CPUS_MAX)
        return KIT_EMALFORMED;
    struct kit_host_environment *host = calloc(1, sizeof *host);
    if (host == NULL)
        return KIT_ENOMEM;
    host->env = (runtime_environment_t){
        .console = &host->console,
        .panic_handler = panic_handler,
        .now_ns = now_ns,
        .wall_ns = wall_ns,
        .entropy = entropy,
        .wait = env_wait,
        .page_release = page_release,
        .page_protect = page_protect,
        .cpu_start = cpu_start,
        .cpu_wake = cpu_wake,
        .cpu_self = cpu_self,
        .cpu_slice = cpu_slice,
        .boot_option = boot_option,
        .exit = leave,
        .cpu_features = kit_cpu_detect(),
        .start_ns = read_clock(CLOCK_MONOTONIC),
        .cpus = settings->cpus == 0 ? 1 : settings->cpus,
        .platform = "host",
    };
    host->console = (console_interface_t){console_write, console_read};
    host->output_fd = settings->output;
    host->input_fd = settings->input;
    pthread_mutex_init(&host->lock, NULL);
    host->options_bytes = settings->options_bytes;
    host->options = malloc(settings->options_bytes + 1);
    host->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = host->options == NULL ? KIT_ENOMEM
             : host->wake_fd < 0   ? KIT_EIO
                                   : open_memory(host, settings->memory);
    if (rc == KIT_OK)
        rc = open_cpus(host);
    if (rc != KIT_OK) {
        kit_host_environment_close(host);
        return rc;
    }
    memcpy(host->options, settings->options, settings->options_bytes);
    *out = host;
    return KIT_OK;
}

void kit_host_environment_close(struct kit_host_environment *host)
{
    if (host == NULL)
        return;
    close_cpus(host);
    if (host->env.memory.size != 0)
        munmap(host->env.memory.base_address, host->env.memory.size);
    if (host->wake_fd >= 0)
        close(host->wake_fd);
    pthread_mutex_destroy(&host->lock);
    free(host->options);
    free(host);
}
