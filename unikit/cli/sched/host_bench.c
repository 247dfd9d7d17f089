/* SPDX-License-Identifier: MIT */
/* One scheduler in a process, as an image carries it: link-time optimised, named at compile time.
 * KERNEL WORDS -- OPTIONS... runs one loop of sched/lab/kernels.h and prints what it reports. The
 * clock is the processor's time stamp, as in an image on kvm. */
#include <string.h>

#include <unikit/cli/sched/host_report.h>
#include <unikit/rt/x86_64/cpu.h>
#include <unikit/sched/lab/kernels.h>
#include <unikit/testing/virtual.h>

enum { OPTIONS = 32, TASKS = 32, CALIBRATE_NS = 20000000, SPIN_NS = 150000 };

extern const struct kit_sched_component KIT_SOLE_SCHED;

struct bench {
    struct kit_kernel kernel;
    struct kit_virtual world;
    uint64_t ticks, start_ns, scale; /* ns = (ticks now - ticks) * scale >> 32 */
};

static struct bench bench;

_Noreturn void kit_panic(const char *message)
{
    fprintf(stderr, "%s\n", message);
    exit(1);
}

/* ---- the environment --------------------------------------------------------------------------
 */

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    size_t step = align < 16 ? 16 : align;
    (void)a;
    return aligned_alloc(step, (size + step - 1) / step * step);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)size, (void)align;
    free(block);
}

static void *heap_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    (void)a, (void)old_size, (void)align;
    return realloc(block, new_size);
}

static const struct kit_alloc_ops heap_ops = {
    .alloc = heap_alloc, .free = heap_free, .realloc = heap_realloc};
static struct kit_alloc heap = {&heap_ops};

static uint64_t bench_now_ns(runtime_environment_t *env)
{
    (void)env;
    return bench.start_ns +
           (uint64_t)((unsigned __int128)(kit_cpu_tsc() - bench.ticks) * bench.scale >> 32);
}

/* Sleeps as far as the system's timers are exact, then looks at the clock. */
static uint32_t bench_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    (void)wake;
    uint64_t now_ns = bench_now_ns(env);
    if (deadline_ns > now_ns + SPIN_NS) {
        uint64_t sleep_ns = deadline_ns - now_ns - SPIN_NS;
        struct timespec time = {(time_t)(sleep_ns / 1000000000u), (long)(sleep_ns % 1000000000u)};
        nanosleep(&time, NULL);
    }
    while (bench_now_ns(env) < deadline_ns)
        kit_cpu_pause();
    return 0;
}

static void bench_calibrate(void)
{
    uint64_t began_ns = report_clock_ns(CLOCK_MONOTONIC), ticks = kit_cpu_tsc(), now_ns;
    do
        now_ns = report_clock_ns(CLOCK_MONOTONIC);
    while (now_ns - began_ns < CALIBRATE_NS);
    uint64_t passed = kit_cpu_tsc() - ticks;
    bench.scale = (uint64_t)(((unsigned __int128)(now_ns - began_ns) << 32) / passed);
    bench.ticks = ticks;
    bench.start_ns = began_ns;
}

static uint64_t bench_cpu_ns(struct kit_kernel *kernel)
{
    (void)kernel;
    return report_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void bench_value(struct kit_kernel *kernel, const char *name, uint64_t value)
{
    (void)kernel;
    report_value(name, (double)value / 1000);
}

static void bench_samples(struct kit_kernel *kernel, uint64_t *values, size_t count)
{
    (void)kernel;
    report_samples(values, count);
}

/* ---- what to run ------------------------------------------------------------------------------
 */

static uint64_t number(char **words, int count, int at)
{
    if (at >= count) {
        fprintf(stderr, "too few words\n");
        exit(2);
    }
    return strtoull(words[at], NULL, 10);
}

/* WORK:PERIOD words, in ns. */
static int run_deadlines(struct kit_kernel *kernel, char **words, int count)
{
    struct kit_kernel_task tasks[TASKS];
    size_t found = 0;
    for (int i = 2; i < count && found < TASKS; i++) {
        char *end;
        uint64_t work_ns = strtoull(words[i], &end, 10);
        tasks[found++] = (struct kit_kernel_task){work_ns, strtoull(end + 1, NULL, 10)};
    }
    return kit_kernel_deadlines(kernel, tasks, found, number(words, count, 1));
}

static int run(struct kit_kernel *kernel, char **words, int count)
{
    const char *name = count > 0 ? words[0] : "";
    if (strcmp(name, "yield") == 0)
        return kit_kernel_yield(kernel, number(words, count, 1), number(words, count, 2),
                                number(words, count, 3));
    if (strcmp(name, "spawn") == 0)
        return kit_kernel_spawn(kernel, number(words, count, 1));
    if (strcmp(name, "timers") == 0)
        return kit_kernel_timers(kernel, number(words, count, 1), number(words, count, 2));
    if (strcmp(name, "wakeup") == 0)
        return kit_kernel_wakeup(kernel, number(words, count, 1), number(words, count, 2),
                                 number(words, count, 3));
    if (strcmp(name, "cyclic") == 0)
        return kit_kernel_cyclic(kernel, number(words, count, 1), number(words, count, 2),
                                 number(words, count, 3));
    if (strcmp(name, "messages") == 0)
        return kit_kernel_messages(kernel, number(words, count, 1), number(words, count, 2));
    if (strcmp(name, "fairness") == 0)
        return kit_kernel_fairness(kernel, number(words, count, 1));
    if (strcmp(name, "deadlines") == 0)
        return run_deadlines(kernel, words, count);
    fprintf(stderr, "no kernel %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    uint64_t options[OPTIONS] = {0};
    int words = 1;
    while (words < argc && strcmp(argv[words], "--") != 0)
        words++;
    for (int i = words + 1; i < argc && i - words - 1 < OPTIONS; i++)
        options[i - words - 1] = strtoull(argv[i], NULL, 10);
    report_quiet(1);
    bench_calibrate();
    kit_virtual_open(&bench.world, NULL, 0, 1);
    bench.world.env.now_ns = bench_now_ns;
    bench.world.env.wait = bench_wait;
    struct kit_kernel *kernel = &bench.kernel;
    *kernel = (struct kit_kernel){.env = &bench.world.env,
                                  .alloc = &heap,
                                  .features = KIT_SOLE_SCHED.features,
                                  .cpu_ns = bench_cpu_ns,
                                  .value = bench_value,
                                  .samples = bench_samples};
    int rc = KIT_SOLE_SCHED.open(options, kernel->env, &heap, &kernel->s);
    if (rc == 0) {
        rc = run(kernel, argv + 1, words - 1);
        if (rc == 0 && kit_sched_check(kernel->s) != 0)
            rc = KIT_ECORRUPT;
        kit_sched_close(kernel->s);
    }
    if (rc != 0)
        fprintf(stderr, "%s: error %d\n", KIT_SOLE_SCHED.id, rc);
    return rc != 0;
}
