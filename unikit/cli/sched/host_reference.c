/* SPDX-License-Identifier: MIT */
/* The loops of sched/lab/kernels.h for POSIX threads, which sleep and wake by futexes; the process
 * is kept on one processor by its caller. «fifo» as first word: SCHED_FIFO where kernels.h gives
 * priorities. The system stops threads as it likes, so there are no safe points; work is counted by
 * the thread's own clock. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <unikit/cli/sched/host_reference.h>

enum { PIECE_NS = 10000, STACK = 65536, MOST = 32 };

static bool fifo;
static pthread_attr_t small;

static uint64_t now_ns(void)
{
    return report_clock_ns(CLOCK_MONOTONIC);
}

static uint64_t used_ns(void)
{
    return report_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static uint64_t cpu_ns(void)
{
    return report_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

void reference_fail(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(1);
}

void reference_start(pthread_t *thread, void *(*entry)(void *), void *argument)
{
    int rc = pthread_create(thread, &small, entry, argument);
    if (rc != 0)
        reference_fail("starting a thread", rc);
}

/* Gives the calling thread a fixed priority, where asked for. */
static void urgent(int priority)
{
    const struct sched_param param = {priority};
    if (!fifo)
        return;
    int rc = pthread_setschedparam(pthread_self(), SCHED_FIFO, &param);
    if (rc != 0)
        reference_fail("SCHED_FIFO", rc);
}

/* Works for a time that only this thread's own work counts towards. */
static void work(uint64_t time_ns)
{
    uint64_t end_ns = used_ns() + time_ns;
    while (used_ns() < end_ns) {
    }
}

static void sleep_until(uint64_t time_ns)
{
    struct timespec time = {(time_t)(time_ns / 1000000000u), (long)(time_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {
    }
}

/* ---- costs ------------------------------------------------------------------------------------
 */

static pthread_barrier_t gate;
static _Atomic uint64_t left;

static void *yield_run(void *argument)
{
    pthread_barrier_wait(&gate);
    while (atomic_load_explicit(&left, memory_order_relaxed) > 0) {
        atomic_store_explicit(&left, atomic_load_explicit(&left, memory_order_relaxed) - 1,
                              memory_order_relaxed); /* one processor: as good as exact */
        sched_yield();
    }
    return argument;
}

static void yields(size_t tasks, uint64_t count)
{
    pthread_t threads[64];
    left = count;
    pthread_barrier_init(&gate, NULL, (unsigned)tasks + 1);
    for (size_t i = 0; i < tasks; i++)
        reference_start(&threads[i], yield_run, NULL);
    uint64_t began_ns = cpu_ns();
    pthread_barrier_wait(&gate);
    for (size_t i = 0; i < tasks; i++)
        pthread_join(threads[i], NULL);
    report_value("yield", (double)(cpu_ns() - began_ns) / (double)count);
}

struct pair {
    pthread_mutex_t lock;
    pthread_cond_t turned;
    int turn;
    uint64_t count;
};

struct player {
    struct pair *pair;
    int self;
};

static void *pair_run(void *argument)
{
    struct player *player = argument;
    struct pair *pair = player->pair;
    pthread_mutex_lock(&pair->lock);
    for (uint64_t n = 0; n < pair->count; n++) {
        while (pair->turn != player->self)
            pthread_cond_wait(&pair->turned, &pair->lock);
        pair->turn = !player->self;
        pthread_cond_signal(&pair->turned);
    }
    pthread_mutex_unlock(&pair->lock);
    return NULL;
}

static void switches(uint64_t count)
{
    struct pair pair = {.lock = PTHREAD_MUTEX_INITIALIZER, .turned = PTHREAD_COND_INITIALIZER};
    struct player players[2] = {{&pair, 0}, {&pair, 1}};
    pthread_t threads[2];
    pair.count = count / 2;
    uint64_t began_ns = cpu_ns();
    for (int i = 0; i < 2; i++)
        reference_start(&threads[i], pair_run, &players[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    report_value("switch", (double)(cpu_ns() - began_ns) / (double)count);
}

static void *nothing_run(void *argument)
{
    return argument;
}

static void spawns(uint64_t count)
{
    pthread_t threads[16];
    uint64_t began_ns = cpu_ns();
    for (uint64_t done = 0; done < count; done += 16) {
        for (int i = 0; i < 16; i++)
            reference_start(&threads[i], nothing_run, NULL);
        for (int i = 0; i < 16; i++)
            pthread_join(threads[i], NULL);
    }
    report_value("spawn", (double)(cpu_ns() - began_ns) / (double)count);
}

/* ---- schbench and cyclictest ------------------------------------------------------------------
 */

struct worker {
    pthread_cond_t given;
    uint64_t posted_ns;
    bool asks, has;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t asked;
    struct worker workers[MOST];
    size_t count, taken, most;
    uint64_t work_ns, interval_ns;
    uint64_t *samples;
    bool over;
} wake = {.lock = PTHREAD_MUTEX_INITIALIZER, .asked = PTHREAD_COND_INITIALIZER};

static void *worker_run(void *argument)
{
    struct worker *self = argument;
    pthread_mutex_lock(&wake.lock);
    while (!wake.over) {
        self->asks = true;
        pthread_cond_signal(&wake.asked);
        while (!self->has && !wake.over)
            pthread_cond_wait(&self->given, &wake.lock);
        uint64_t latency_ns = now_ns() - self->posted_ns;
        if (self->has && wake.taken < wake.most)
            wake.samples[wake.taken++] = latency_ns;
        self->has = false;
        pthread_mutex_unlock(&wake.lock);
        work(wake.work_ns);
        pthread_mutex_lock(&wake.lock);
    }
    pthread_mutex_unlock(&wake.lock);
    return NULL;
}

static void *messenger_run(void *argument)
{
    urgent(50);
    pthread_mutex_lock(&wake.lock);
    while (wake.taken < wake.most) {
        bool any = false;
        for (size_t i = 0; i < wake.count; i++) {
            struct worker *worker = &wake.workers[i];
            if (!worker->asks)
                continue;
            any = true;
            worker->asks = false;
            worker->has = true;
            worker->posted_ns = now_ns();
            pthread_cond_signal(&worker->given);
        }
        if (!any)
            pthread_cond_wait(&wake.asked, &wake.lock);
    }
    wake.over = true;
    for (size_t i = 0; i < wake.count; i++)
        pthread_cond_signal(&wake.workers[i].given);
    pthread_mutex_unlock(&wake.lock);
    return argument;
}

static void wakeups(size_t workers, uint64_t work_ns, size_t count)
{
    pthread_t threads[MOST], messenger;
    wake.count = workers < MOST ? workers : MOST;
    wake.work_ns = work_ns;
    wake.most = count;
    wake.samples = calloc(count, sizeof(*wake.samples));
    for (size_t i = 0; i < wake.count; i++) {
        pthread_cond_init(&wake.workers[i].given, NULL);
        reference_start(&threads[i], worker_run, &wake.workers[i]);
    }
    reference_start(&messenger, messenger_run, NULL);
    pthread_join(messenger, NULL);
    for (size_t i = 0; i < wake.count; i++)
        pthread_join(threads[i], NULL);
    report_samples(wake.samples, wake.taken);
}

static _Atomic bool finished;

static void *load_run(void *argument)
{
    while (!finished)
        work(1000000);
    return argument;
}

static void *cyclic_run(void *argument)
{
    urgent(50);
    uint64_t next_ns = now_ns();
    while (wake.taken < wake.most) {
        next_ns += wake.interval_ns;
        sleep_until(next_ns);
        uint64_t time_ns = now_ns();
        wake.samples[wake.taken++] = time_ns - next_ns;
        if (time_ns - next_ns > wake.interval_ns)
            next_ns = time_ns;
    }
    finished = true;
    return argument;
}

static void cyclic(size_t load, uint64_t interval_ns, size_t count)
{
    pthread_t threads[MOST], timer;
    wake.interval_ns = interval_ns;
    wake.most = count;
    wake.samples = calloc(count, sizeof(*wake.samples));
    for (size_t i = 0; i < load && i < MOST; i++)
        reference_start(&threads[i], load_run, NULL);
    reference_start(&timer, cyclic_run, NULL);
    pthread_join(timer, NULL);
    for (size_t i = 0; i < load && i < MOST; i++)
        pthread_join(threads[i], NULL);
    report_samples(wake.samples, wake.taken);
}

/* ---- fairness and deadlines -------------------------------------------------------------------
 */

struct share {
    int nice;
    uint64_t weight;
    _Atomic uint64_t used_ns;
};

enum { SHARES = 3 };
static struct share shares[SHARES];
static uint64_t share_weight;
static uint64_t share_end_ns, share_lag_ns;

static uint64_t share_lag(uint64_t *total_ns)
{
    uint64_t worst_ns = 0;
    *total_ns = 0;
    for (int i = 0; i < SHARES; i++)
        *total_ns += shares[i].used_ns;
    for (int i = 0; i < SHARES; i++) {
        uint64_t due_ns = *total_ns * shares[i].weight / share_weight, had_ns = shares[i].used_ns;
        uint64_t lag_ns = due_ns > had_ns ? due_ns - had_ns : had_ns - due_ns;
        worst_ns = lag_ns > worst_ns ? lag_ns : worst_ns;
    }
    return worst_ns;
}

static void *share_run(void *argument)
{
    struct share *self = argument;
    uint64_t total_ns = 0;
    if (setpriority(PRIO_PROCESS, (id_t)gettid(), self->nice) != 0)
        reference_fail("setting nice", errno);
    pthread_barrier_wait(&gate);
    uint64_t since_ns = used_ns();
    while (total_ns < share_end_ns) {
        work(PIECE_NS);
        self->used_ns = used_ns() - since_ns;
        uint64_t lag_ns = share_lag(&total_ns);
        if (lag_ns > share_lag_ns)
            share_lag_ns = lag_ns;
    }
    return NULL;
}

static void fairness(uint64_t time_ns)
{
    pthread_t threads[SHARES];
    uint64_t total_ns;
    /* three steps of nice apart; the system's weights for these (kernel/sched/core.c) */
    static const uint64_t weights[2][SHARES] = {{1024, 526, 272}, {88761, 46273, 23254}};
    int nice = getpriority(PRIO_PROCESS, 0);
    for (int i = 0; i < SHARES; i++) {
        shares[i] = (struct share){.nice = nice + 3 * i, .weight = weights[nice == -20][i]};
        share_weight += shares[i].weight;
    }
    share_end_ns = time_ns;
    pthread_barrier_init(&gate, NULL, SHARES);
    for (int i = 0; i < SHARES; i++)
        reference_start(&threads[i], share_run, &shares[i]);
    for (int i = 0; i < SHARES; i++)
        pthread_join(threads[i], NULL);
    uint64_t error_ns = share_lag(&total_ns);
    report_value("lag", (double)share_lag_ns / 1000);
    report_value("error", (double)error_ns * 100 / (double)total_ns);
}

static struct periodic {
    uint64_t work_ns, period_ns;
    int priority;
} periodic[MOST];
static uint64_t begin_ns, end_ns;
static _Atomic uint64_t jobs, missed;

static void *periodic_run(void *argument)
{
    struct periodic *self = argument;
    urgent(self->priority);
    for (uint64_t release_ns = begin_ns; release_ns < end_ns; release_ns += self->period_ns) {
        sleep_until(release_ns);
        work(self->work_ns);
        jobs++;
        missed += now_ns() > release_ns + self->period_ns;
    }
    return NULL;
}

static void deadlines(uint64_t time_ns, char **words, int count)
{
    pthread_t threads[MOST];
    int found = 0;
    for (; found < count && found < MOST; found++) {
        char *end;
        periodic[found].work_ns = strtoull(words[found], &end, 10);
        periodic[found].period_ns = strtoull(end + 1, NULL, 10);
    }
    begin_ns = now_ns() + 2000000;
    end_ns = begin_ns + time_ns;
    for (int i = 0; i < found; i++) {
        periodic[i].priority = 50;
        for (int j = 0; j < found; j++)
            periodic[i].priority -= periodic[j].period_ns < periodic[i].period_ns;
        reference_start(&threads[i], periodic_run, &periodic[i]);
    }
    for (int i = 0; i < found; i++)
        pthread_join(threads[i], NULL);
    report_value("jobs", (double)jobs);
    report_value("missed", (double)missed);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "fifo") == 0) {
        fifo = true;
        argc--, argv++;
    }
    const char *mode = argc > 1 ? argv[1] : "";
    report_quiet(0);
    uint64_t n[3] = {0};
    for (int i = 0; i < 3 && i + 2 < argc; i++)
        n[i] = strtoull(argv[i + 2], NULL, 10);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    if (strcmp(mode, "switch") == 0)
        switches(n[0]);
    else if (strcmp(mode, "yield") == 0 && n[0] <= 64)
        yields(n[0], n[1]);
    else if (strcmp(mode, "spawn") == 0)
        spawns(n[0]);
    else if (strcmp(mode, "wakeup") == 0)
        wakeups(n[0], n[1], n[2]);
    else if (strcmp(mode, "cyclic") == 0)
        cyclic(n[0], n[1], n[2]);
    else if (strcmp(mode, "messages") == 0 || strcmp(mode, "pipes") == 0)
        reference_messages(n[0], n[1], strcmp(mode, "pipes") == 0);
    else if (strcmp(mode, "fairness") == 0)
        fairness(n[0]);
    else if (strcmp(mode, "deadlines") == 0)
        deadlines(n[0], argv + 3, argc - 3);
    else
        return 2;
    return 0;
}
